import ArgumentParser
import ComposefsOCI
import LinuxSystem

struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print an image's tree as a composefs dumpfile.")

    @Argument(help: "The image.")
    var image: ByteString

    @OptionGroup var tree: TreeOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(readOnly: true)
        let found = try store.images.open(image).image
        try writeDumpfile(try tree.tree(of: found, in: store)) { try Output.write($0) }
    }
}

struct ComputeID: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compute-id", abstract: "Print the identifier of an image's EROFS image, computed anew from its layers.")

    @Argument(help: "The image; left out with --path.")
    var image: ByteString?

    @Option(help: ArgumentHelp("A directory instead of an image.", valueName: "dir"))
    var path: ByteString?

    @OptionGroup var version: VersionOption
    @OptionGroup var tree: TreeOptions

    @Option(help: ArgumentHelp("With --path, and without a repository: sha256 or sha512.", valueName: "name"))
    var hash: String?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard (image == nil) != (path == nil) else { throw ValidationError("name an image, or a directory with --path") }
        guard hash == nil || path != nil else { throw ValidationError("--hash goes with --path; an image has its repository's") }
    }

    func run() throws {
        if let path {
            let (algorithm, fallback) = try global.directoryDefaults(hash: hash)
            let tree = try directoryTree(path, algorithm, tree)
            return try report(try imageID(of: tree, try version.version(default: fallback), algorithm))
        }
        let store = try global.openStore(readOnly: true)
        let found = try store.images.open(image ?? "").image
        let version = try version.version(default: store.repository.erofsFormats.default)
        try report(try imageID(of: try tree.tree(of: found, in: store), version, store.repository.algorithm))
    }

    private func report(_ id: ObjectID) throws {
        if json { try Output.print(["imageId": .string(id.hex)]) } else { try Output.print(id.hex) }
    }
}

extension GlobalOptions {
    /// For commands that need no repository: its algorithm and format where there is one, else what `init` would make.
    func directoryDefaults(hash: String?) throws -> (VerityAlgorithm, ErofsVersion) {
        let repository = try? Store.open(try repositoryPath()).repository
        if let hash {
            guard let algorithm = VerityAlgorithm(name: hash) else { throw ValidationError("--hash takes sha256 or sha512, not \(hash)") }
            return (algorithm, repository?.erofsFormats.default ?? .v1)
        }
        return (repository?.algorithm ?? .sha512, repository?.erofsFormats.default ?? .v1)
    }
}

/// A directory's tree in the form of an image's, its contents hashed and stored nowhere.
func directoryTree(_ path: ByteString, _ algorithm: VerityAlgorithm, _ options: TreeOptions) throws -> FileTree {
    var tree = try hashDirectory(path, algorithm)
    transformForContainer(&tree, options.xattrs.filtering)
    if options.bootable { try transformForBoot(&tree, contentsOf: path) }
    return tree
}

struct CreateDumpfile: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-dumpfile", abstract: "Print the dumpfile of a directory, as an image of it would have it.")

    @Argument(help: "The directory.")
    var directory: ByteString

    @Option(help: ArgumentHelp("Without a repository: sha256 or sha512.", valueName: "name"))
    var hash: String?

    @OptionGroup var tree: TreeOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (algorithm, _) = try global.directoryDefaults(hash: hash)
        try writeDumpfile(try directoryTree(directory, algorithm, tree)) { try Output.write($0) }
    }
}

struct CreateImage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-image", abstract: "Store a directory's files and its EROFS image; print the image's identifier.")

    @Argument(help: "The directory.")
    var directory: ByteString

    @Argument(help: "A name below images/refs, which keeps the image.")
    var name: ByteString?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var tree: TreeOptions
    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        // No repository is made for a directory that is not there.
        _ = try FileDescriptor.open(directory, [.readOnly, .directory])
        let repository = try global.openOrCreateStore(signer: signing.signer()).repository
        try repository.beginPull()
        var image = try repository.importDirectory(directory)
        transformForContainer(&image, tree.xattrs.filtering)
        if tree.bootable { try transformForBoot(&image, contentsOf: directory) }
        var publication = Repository.Publication()
        var result: ObjectID?
        for version in repository.erofsFormats.all {
            let id = try repository.storeImage(try writeErofs(image, version: version)).id
            publication.image(id)
            if version == repository.erofsFormats.default {
                result = id
                if let name { publication.imageReference(name, id) }
            }
        }
        try repository.publish(publication)
        guard let result else { return }
        if json {
            try Output.print(["imageId": .string(result.hex), "name": name.map { .string($0.jsonText) } ?? .null])
        } else {
            try Output.print(result.hex)
        }
    }
}
