import ArgumentParser
import ComposefsOCI

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
