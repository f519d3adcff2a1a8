package import ArgumentParser
package import ComposefsCommandSupport
import ComposefsOCI

package struct ComputeID: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "compute-id", abstract: "Print the identifier of an image's EROFS image, computed again from its layers.",
        discussion: DirectoryWalk.help)

    @Argument(help: "The image; omitted with --path.", completion: .imageName)
    var image: ByteString?

    @Option(help: ArgumentHelp("A directory instead of an image.", valueName: "dir"), completion: .directory)
    var path: ByteString?

    @OptionGroup var version: VersionOption
    @OptionGroup var tree: TreeOptions

    @Option(help: ArgumentHelp("With --path, and without a repository: sha256 or sha512.", valueName: "name"))
    var hash: String?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup package var global: GlobalOptions

    package init() {}

    package func validate() throws {
        guard (image == nil) != (path == nil) else { throw ValidationError("name an image, or a directory with --path") }
        guard hash == nil || path != nil else { throw ValidationError("--hash needs --path; an image has the algorithm of its repository") }
    }

    package func run() throws {
        if let path {
            let (algorithm, fallback) = try global.directoryDefaults(hash: hash)
            try global.confine(.reading(), repository: nil) { $0.readable = [path] }
            let tree = try directoryTree(path, algorithm, tree, global)
            return try report(try imageID(of: tree, try version.version(default: fallback), algorithm))
        }
        let store = try global.openStore(Self.rights, readOnly: true)
        let version = try version.version(default: store.repository.erofsFormats.default)
        try report(try imageID(of: try tree.tree(ofImage: image ?? "", in: store), version, store.repository.algorithm))
    }

    private func report(_ id: ObjectID) throws { try ComputedID(id: id).show(asJSON: json) }
}

private struct ComputedID: CommandReport {
    var id: ObjectID

    var lines: [String] { [id.hex] }

    var json: JSONValue { ["imageId": .string(id.hex)] }
}
