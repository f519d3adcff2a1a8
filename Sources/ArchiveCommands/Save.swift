public import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
public import ComposefsOCI

package struct Save: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "save", abstract: "Write images into one archive that docker, podman and others load.",
        usage: "cfsoci save [<options>] <image> ... <file>|-",
        discussion: """
            The last argument is the archive; - is standard output. A file is replaced when the archive is complete. Each layer is there \
            once, however many of the images have it. An image has the tag by which it is named here; named by a digest, it has no name.

            docker-archive   an OCI layout with the manifest.json of docker, as docker has saved since version 25: for docker load, podman \
            load, skopeo and readers of OCI layouts. Layers are uncompressed, unless the original blobs are kept (pull --keep-blobs)
            oci-archive      an OCI layout; layers are compressed as the manifest states

            The same images give the same bytes. An image in Docker's format becomes an OCI image with another digest, which is printed.

            Example: cfsoci save alpine debian images.tar

            Into docker: cfsoci save alpine - | docker load
            """)

    @Argument(help: "The images, and at the end the archive; - for standard output.")
    var arguments: [ByteString]

    @Option(help: ArgumentHelp("The form of the archive.", valueName: "docker-archive|oci-archive"))
    var format: SavedArchive.Format = .docker

    @Option(
        help: ArgumentHelp("How layers are compressed, if the original blobs are not used.", valueName: "gzip|zstd|none"))
    var compression: LayerCompression?

    @Option(help: ArgumentHelp("The compression level. gzip: 1 to 9 (default: 6), zstd: 1 to 22 (default: 3).", valueName: "n"))
    var compressionLevel: Int?

    @Flag(help: "Print JSON; the archive must be a file.")
    var json = false

    @OptionGroup var global: GlobalOptions

    package init() {}

    private var images: [ByteString] { Array(arguments.dropLast()) }
    private var file: ByteString { arguments.last ?? "-" }
    private var isOutput: Bool { file == "-" }

    package func validate() throws {
        guard arguments.count > 1 else { throw ValidationError("name one image or more, and then the archive; - is standard output") }
        guard !(json && isOutput) else { throw ValidationError("--json needs a file: standard output is the archive") }
        guard let level = compressionLevel else { return }
        guard let format = compression?.format else { throw ValidationError("--compression-level needs --compression") }
        guard let levels = PushOptions.levels(of: format) else { throw ValidationError("--compression none has no levels") }
        guard levels.contains(level) else {
            throw ValidationError("--compression-level must be from \(levels.lowerBound) to \(levels.upperBound) for \(format.name)")
        }
    }

    package func run() throws {
        if isOutput { try refuseTerminal() }
        let store = try global.openStoreUnchanged(Self.rights) { confinement in
            if !isOutput { confinement.writable.append(FileDescriptor.split(file).directory) }
        }
        let display = ProgressDisplay(global, PushState())
        // Before the first line of the report or of an error.
        defer { display.end() }
        let target: SavedArchive.Target = isOutput ? .stream(scratch: store.repository.path) { try writeToOutput($0) } : .file(file)
        let options = PushOptions(compression: compression?.format, level: compressionLevel, observer: { display.show($0) })
        let result: SaveResult
        do {
            result = try store.save(images, to: target, format: format, options)
        } catch let error as SavedArchive.ArtifactRefused {
            throw CommandError("\(Output.printable(ByteString(error.description))); use --format oci-archive")
        }
        display.end()
        try report(result)
    }

    private func report(_ result: SaveResult) throws {
        for image in result.images {
            if image.push.isConverted {
                global.note(
                    "the image \(image.push.sourceDigest) has Docker's format and is written as an OCI image with the digest "
                        + "\(image.push.manifestDigest)")
            }
            if !image.push.referrersLeftOut.isEmpty {
                global.note("\(image.push.referrersLeftOut.count) referrers are not written: they belong to \(image.push.sourceDigest)")
            }
        }
        let report = SaveReport(result: result)
        if isOutput {
            for line in report.lines { global.note(line) }
        } else {
            try report.show(asJSON: json)
        }
    }
}

extension SavedArchive.Format: ExpressibleByArgument {}

private struct SaveReport: CommandReport {
    var result: SaveResult

    var lines: [String] {
        result.images.flatMap { image -> [String] in
            let names = image.names.isEmpty ? ["-"] : image.names
            return names.map { "saved  \(Output.printable(ByteString($0)))  \(image.push.manifestDigest)" }
        }
    }

    var json: JSONValue {
        [
            "format": .string(result.format.rawValue),
            "images": .array(
                result.images.map { image in
                    [
                        "names": .array(image.names.map { .string($0) }), "manifestDigest": .text(image.push.manifestDigest),
                        "sourceManifestDigest": .text(image.push.sourceDigest), "configDigest": .text(image.push.configDigest),
                        "layers": .array(
                            image.push.layers.map { layer in
                                ["digest": .text(layer.descriptor.digest), "size": JSONValue(layer.descriptor.size)]
                            }),
                    ]
                }),
        ]
    }
}
