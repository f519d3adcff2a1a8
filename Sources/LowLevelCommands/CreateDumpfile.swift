package import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

package struct CreateDumpfile: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "create-dumpfile", abstract: "Print the dumpfile of a directory, as that of an image of it.",
        discussion: DirectoryWalk.help)

    @Argument(help: "The directory.", completion: .directory)
    var directory: ByteString

    @Option(help: ArgumentHelp("Without a repository: sha256 or sha512.", valueName: "name"))
    var hash: String?

    @OptionGroup var tree: TreeOptions
    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        let (algorithm, _) = try global.directoryDefaults(hash: hash)
        try global.confine(.reading(), repository: nil) { $0.readable = [directory] }
        try writeDumpfile(try directoryTree(directory, algorithm, tree, global)) { try Output.write($0) }
    }
}
