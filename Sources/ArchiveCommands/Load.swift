package import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI

package struct Load: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "load", abstract: "Store all images of an archive, with the names that are recorded in it.",
        discussion: """
            FILE is what docker or podman has saved, an archive of an OCI layout, or an OCI layout in a directory; - is standard input. \
            Which of them it is is detected, also if it is compressed with gzip or zstd. What comes through a pipe needs the space of the \
            uncompressed archive in the repository until it is loaded.

            Each name is printed with the digest of its manifest. An image without a name gets the tag loaded-DIGITS, from the digest. If an \
            image is refused, those before it stay.

            Example: cfsoci load images.tar

            From docker: docker save alpine debian | cfsoci load -
            """)

    @Argument(help: "The archive or layout; - for standard input.", completion: .file())
    var file: ByteString

    @Option(
        help: ArgumentHelp("The platform of the image to load from an index; by default that of the host.", valueName: "os/arch[/variant]"))
    var platform: String?

    @Flag(help: "Also keep the compressed blobs of layers, so that save and push write them unchanged, with the same digests.")
    var keepBlobs = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Transfer options") var transfer: TransferArguments

    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        let platform = try platform.map { try Platform(parsing: $0) } ?? .host
        let isInput = file == "-"
        let policy = try transfer.signatures.policy()
        let store = try global.openStore(Self.rights) { if !isInput { $0.readable.append(file) } }
        let display = ProgressDisplay(global, PullState(.resolving(Output.printable(file))))
        // Before the first line of the report or of an error.
        defer { display.end() }
        var options = PullOptions(platform: platform, observer: { display.show($0) })
        var registry = RegistryOptions()
        transfer.apply(to: &options, &registry)
        options.keepsBlobs = keepBlobs
        options.signaturePolicy = policy
        let result = try store.load(isInput ? "/dev/stdin" : file, options)
        display.end()
        try LoadReport(result: result).show(asJSON: json)
    }
}

private struct LoadReport: CommandReport {
    var result: LoadResult

    var lines: [String] {
        result.images.flatMap { image in image.names.map { "loaded  \(Output.printable($0))  \(image.pull.manifestDigest)" } }
    }

    var json: JSONValue {
        [
            "format": .string(result.format.rawValue),
            "images": .array(
                result.images.map { image in
                    [
                        "names": .array(image.names.map { .string($0.jsonText) }), "named": .bool(image.isNamed),
                        "manifestDigest": .text(image.pull.manifestDigest), "configDigest": .text(image.pull.configDigest),
                        "imageId": .text(image.pull.imageID?.hex), "platform": .text(image.pull.platform),
                        "layersNew": .count(image.pull.newLayers), "layersPresent": .count(image.pull.presentLayers),
                    ]
                }),
        ]
    }
}
