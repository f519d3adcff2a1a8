public import ComposefsBytes

extension ImageReference {
    /// Opens what the reference names on this machine.
    ///
    /// - Parameters:
    ///   - scratch: for archives that are compressed or come through a pipe.
    ///   - storageRoots: where the storage of container tools is, asked for where it is needed; nil for the usual places.
    /// - Returns: nil for a reference to a registry.
    /// - Throws: `OCIError`, `SystemError`.
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
