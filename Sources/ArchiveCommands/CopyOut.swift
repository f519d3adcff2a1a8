package import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

package struct CopyOut: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "cp", abstract: "Copy a file or directory out of an image.",
        discussion: """
            As `cp -a`: with owner, mode, times and extended attributes. Symbolic links on the way to PATH are followed inside the image; PATH \
            itself is copied as it is. In a directory DEST, the copy has the name that it has in the image. A regular file replaces one in one \
            step; anything else must be missing. With - a directory or file is written to standard output as a tar archive.

            Example: cfsoci cp alpine:/etc/os-release ./

            As an archive: cfsoci cp alpine:/etc - | tar tv
            """)

    @Argument(help: ArgumentHelp("The image and the path in it; the path begins with /.", valueName: "image:path"))
    var source: ByteString

    @Argument(help: "The file or directory; - for standard output.", completion: .file())
    var destination: ByteString

    @OptionGroup var ownership: OwnershipOptions

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    package init() {}

    package func validate() throws {
        guard !Self.splits(of: source).isEmpty else { throw ValidationError("\"\(source)\": write IMAGE:/PATH") }
        guard !(json && destination == "-") else { throw ValidationError("--json needs a file: standard output is the archive") }
    }

    package func run() throws {
        let isOutput = destination == "-"
        if isOutput { try refuseTerminal() }
        let store = try openStore(global, for: Self.rights, writing: isOutput ? [] : [destination])
        try withExtractionHints {
            let (image, path) = try find(in: store)
            let part = try store.images.fileTree(of: image).part(path)
            let name = FileDescriptor.split(path).name
            if isOutput {
                warn(ofSockets: try part.writeTar(named: name) { try writeToOutput($0) }, global)
                return
            }
            let copied = try part.copy(to: destination, named: name == "/" || name == "." ? "" : name, ownership.options)
            try UnpackedFiles(path: copied.path, report: copied.report).show(asJSON: json)
        }
    }

    /// The image and the path. Names of images may contain `:/`, so the first reading that names one counts.
    private func find(in store: Store) throws -> (image: ByteString, path: ByteString) {
        let splits = Self.splits(of: source)
        for split in splits.dropFirst() where (try? store.images.find(splits[0].image)) == nil {
            if (try? store.images.find(split.image)) != nil { return split }
        }
        return splits[0]
    }

    static func splits(of text: ByteString) -> [(image: ByteString, path: ByteString)] {
        let bytes = text.bytes
        return bytes.indices.dropLast().filter { $0 > 0 && bytes[$0] == UInt8(ascii: ":") && bytes[$0 + 1] == UInt8(ascii: "/") }.prefix(16)
            .map {
                (ByteString(Array(bytes[..<$0])), ByteString(Array(bytes[($0 + 1)...])))
            }
    }
}
