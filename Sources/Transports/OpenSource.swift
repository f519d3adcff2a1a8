public import ComposefsBytes

extension ImageReference {
    /// Opens the image that the reference names, unless it is in a registry.
    ///
    /// - Parameters:
    ///   - scratch: for archives that are compressed or come through a pipe.
    ///   - storageRoots: returns the storages of container tools; nil for the default locations. Called only for `containers-storage:`.
    /// - Returns: nil for a reference to a registry.
    /// - Throws: `OCIError`, `SystemError`, `LimitExceeded`, `CancellationError`.
    public func openLocalSource(
        scratch: ArchiveScratch, storageRoots: () throws -> [ByteString]? = { nil }
    ) throws -> (any ImageSource)? {
        switch self {
        case .layout(let location): try LayoutSource(directory: location)
        case .ociArchive(let location): try LayoutSource(archive: location, scratch: scratch)
        case .dockerArchive(let location): try DockerArchiveSource(location, scratch: scratch)
        case .directory(let path): try DirectorySource(path)
        case .containersStorage(let name): try StorageSource(name, roots: storageRoots())
        case .registry: nil
        }
    }
}
