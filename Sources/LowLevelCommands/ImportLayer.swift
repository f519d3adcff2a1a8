package import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

package struct ImportLayer: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "import-layer", abstract: "Store one layer from standard input: a tar archive, compressed or not.")

    @Argument(help: "The diff ID: the digest of the uncompressed archive.")
    var diffID: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        let digest = try contentDigest(diffID)
        let store = try global.openStore(Self.rights, signer: signing.signer())
        let id = try store.images.importLayer(digest, from: StandardInput())
        try ImportedLayer(diffID: digest, stream: id).show(asJSON: json)
    }
}

private struct ImportedLayer: CommandReport {
    var diffID: ContentDigest
    var stream: ObjectID

    var lines: [String] { ["layer  \(stream)"] }

    var json: JSONValue { ["diffId": .text(diffID), "verity": .string(stream.hex)] }
}
