import ArgumentParser
package import ComposefsOCI

extension GlobalOptions {
    /// For commands that need no repository: algorithm and format of the repository if there is one, else those that `init` would choose.
    package func directoryDefaults(hash: String?) throws -> (VerityAlgorithm, ErofsVersion) {
        let repository = try? Store.open(try repositoryPath()).repository
        if let hash {
            guard let algorithm = VerityAlgorithm(name: hash) else { throw ValidationError("--hash takes sha256 or sha512, not \(hash)") }
            return (algorithm, repository?.erofsFormats.default ?? .v1)
        }
        return (repository?.algorithm ?? .sha512, repository?.erofsFormats.default ?? .v1)
    }
}

/// A directory's tree in the form of an image's. Its contents are hashed, but not stored.
package func directoryTree(
    _ path: ByteString, _ algorithm: VerityAlgorithm, _ options: TreeOptions, _ global: GlobalOptions
) throws -> FileTree {
    let walk = DirectoryWalk()
    var tree = try hashDirectory(path, algorithm) { walk.found($0) }
    walk.tell(global)
    transformForContainer(&tree, options.xattrs.filtering)
    if options.bootable { try transformForBoot(&tree, contentsOf: path) }
    return tree
}

/// The directories that a walk leaves empty, for one note at its end.
package final class DirectoryWalk {
    package static let help =
        "A directory is read on its own file system: a directory on which another file system is mounted is empty in the image."
    /// How many of them are named; `/` alone has about ten.
    private static let namedAtMost = 4
    private var mountPoints: [ByteString] = []

    package init() {}

    package func found(_ path: ByteString) { mountPoints.append(path) }

    package func tell(_ global: GlobalOptions) {
        guard !mountPoints.isEmpty else { return }
        let names = mountPoints.sorted().prefix(Self.namedAtMost).map { Output.printable($0) }.joined(separator: ", ")
        let more = mountPoints.count > Self.namedAtMost ? ", …" : ""
        global.note("left empty, because other file systems are mounted there: \(names)\(more) (\(mountPoints.count) in all)")
    }
}
