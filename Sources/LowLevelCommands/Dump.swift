package import ArgumentParser
package import ComposefsCommandSupport
import ComposefsOCI

package struct Dump: ParsableCommand {
    package static let configuration = CommandConfiguration(commandName: "dump", abstract: "Print an image's tree as a composefs dumpfile.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @OptionGroup var tree: TreeOptions
    @OptionGroup package var global: GlobalOptions

    package init() {}

    package func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        try writeDumpfile(try tree.tree(ofImage: image, in: store)) { try Output.write($0) }
    }
}
