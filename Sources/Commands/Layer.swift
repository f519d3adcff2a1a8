import ArgumentParser
import ComposefsOCI

struct Layer: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print a layer's original uncompressed tar, byte for byte.")

    @Argument(help: "The layer's diff ID.")
    var diffID: ByteString

    @Flag(help: "One dumpfile line an entry instead.")
    var dumpfile = false

    @Flag(help: "Sizes and counts as JSON instead.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(dumpfile && json) else { throw ValidationError("--dumpfile and --json exclude each other") }
    }

    func run() throws {
        let digest = try contentDigest(diffID)
        let images = try global.openStore(readOnly: true).images
        if json {
            let info = try images.layerInfo(digest)
            return try Output.print([
                "diffId": .string(info.diffID.description), "verity": .string(info.stream.hex), "size": JSONValue(info.size),
                "entryCount": .integer(Int64(info.entryCount)),
                "splitstream": [
                    "externalObjects": .integer(Int64(info.externalObjects)), "externalSize": JSONValue(info.externalSize),
                    "inlineSize": JSONValue(info.inlineSize),
                ],
            ])
        }
        let stream = try images.layerStream(digest)
        if dumpfile { return try images.forEachDumpLine(of: stream) { try Output.write($0) } }
        if Output.outputIsTerminal {
            throw CommandError("an archive is not for a terminal; redirect it to a file or a pipe, or use --dumpfile or --json")
        }
        // The reassembled archive is hashed on the way: damage shows in the exit status at the latest.
        var hasher = DigestHasher(digest.algorithm)
        try images.readLayer(stream) {
            hasher.update($0)
            try Output.write($0)
        }
        let actual = hasher.finalize()
        guard actual == digest else { throw DamageFound(message: "layer \(digest): the archive that was written has the digest \(actual)") }
    }
}

/// A digest that was typed.
func contentDigest(_ text: ByteString) throws -> ContentDigest {
    guard let digest = text.utf8Text.flatMap({ ContentDigest($0) }) else {
        throw CommandError("\"\(text)\" is no digest; one is written sha256: and 64 lower-case hex digits")
    }
    return digest
}

struct ImportLayer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import-layer", abstract: "Store one layer from standard input: a tar archive, compressed or not.")

    @Argument(help: "The diff ID: the digest of the uncompressed archive.")
    var diffID: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let digest = try contentDigest(diffID)
        let store = try global.openStore(signer: signing.signer())
        let id = try store.images.importLayer(digest, from: StandardInput())
        if json { return try Output.print(["diffId": .string(digest.description), "verity": .string(id.hex)]) }
        try Output.print("layer  \(id)")
    }
}

struct Stream: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Streams by name.", subcommands: [CatStream.self])

    struct CatStream: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "cat", abstract: "Print a stream's whole content.")

        @Argument(help: "The stream's name in streams/, or refs/… below it.")
        var name: ByteString

        @OptionGroup var global: GlobalOptions

        func run() throws {
            let store = try global.openStore(readOnly: true)
            var entry = name
            if entry.hasPrefix("refs/") {
                guard let reference = try store.repository.streamReference(ByteString(Array(entry.bytes.dropFirst(5)))) else {
                    throw RepositoryError.streamMissing(entry)
                }
                entry = reference.entry
            }
            guard let id = try store.repository.stream(entry) else { throw RepositoryError.streamMissing(entry) }
            try store.images.readLayer(id) { try Output.write($0) }
        }
    }
}

struct ImageObjects: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image-objects", abstract: "List the objects that an EROFS image's files need.")

    @Argument(help: "The EROFS image's identifier, or a name below images/refs.")
    var id: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let repository = try global.openStore(readOnly: true).repository
        let image = try repository.image(id)
        let objects = try repository.imageObjects(image)
        if json { return try Output.print(["imageId": .string(image.hex), "objects": .array(objects.map { .string($0.hex) })]) }
        for object in objects { try Output.print(object.hex) }
    }
}
