internal import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem

/// A repository's objects, for reading alone: it holds no lock, so what is read must be kept by a reference or a lease.
public final class ObjectReader: Sendable {
    private let root: RootedDirectory

    init(_ root: consuming RootedDirectory) { self.root = root }

    /// Opens an object. Its content is not verified.
    ///
    /// - Throws: `RepositoryError.objectMissing`; `.objectDamaged` when it is no regular file.
    public func openObject(_ id: ObjectID) throws(RepositoryError) -> FileDescriptor {
        try Repository.openForReading(id, at: Layout.objectPath(id), in: root)
    }
}

extension Repository {
    /// A reader of the objects that outlives this handle and its lock.
    public func objectReader() throws(RepositoryError) -> ObjectReader {
        // Opened again: a duplicate would share the lock.
        ObjectReader(RootedDirectory(try system { () throws(SystemError) in try root.descriptor.open(at: ".", [.readOnly, .directory]) }))
    }
}
