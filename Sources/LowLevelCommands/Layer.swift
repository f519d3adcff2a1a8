package import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

package struct Layer: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "layer", abstract: "Print a layer's original uncompressed tar, byte for byte.")

    @Argument(help: "The layer's diff ID.", completion: .layerName)
    var diffID: ByteString

    @Flag(help: "Print one dumpfile line for each entry instead.")
    var dumpfile = false

    @Flag(help: "Print sizes and counts as JSON instead.")
    var json = false

    @OptionGroup var global: GlobalOptions

    package init() {}

    package func validate() throws {
        guard !(dumpfile && json) else { throw ValidationError("--dumpfile and --json exclude each other") }
    }

    package func run() throws {
        let digest = try contentDigest(diffID)
        let images = try global.openStore(Self.rights, readOnly: true).images
        if json { return try Output.print(Self.document(try images.layerInfo(digest))) }
        let stream = try images.layerStream(digest)
        if dumpfile { return try images.forEachDumpLine(of: stream) { try Output.write($0) } }
        if Output.outputIsTerminal {
            throw CommandError("an archive is not for a terminal; redirect it to a file or a pipe, or use --dumpfile or --json")
        }
        // The archive is hashed while it is written: the exit status shows damage at the latest.
        var hasher = DigestHasher(digest.algorithm)
        try images.readLayer(stream) {
            hasher.update($0)
            try Output.write($0)
        }
        let actual = hasher.finalize()
        guard actual == digest else { throw DamageFound(message: "layer \(digest): the archive that was written has the digest \(actual)") }
    }
}

extension Layer {
    private static func document(_ info: LayerInfo) -> JSONValue {
        [
            "diffId": .text(info.diffID), "verity": .string(info.stream.hex), "size": JSONValue(info.size),
            "entryCount": .count(info.entryCount),
            "splitstream": [
                "externalObjects": .count(info.externalObjects), "externalSize": JSONValue(info.externalSize),
                "inlineSize": JSONValue(info.inlineSize),
            ],
        ]
    }
}
