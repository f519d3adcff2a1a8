import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print an image's tree as a composefs dumpfile.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @OptionGroup var tree: TreeOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        try writeDumpfile(try tree.tree(ofImage: image, in: store)) { try Output.write($0) }
    }
}
