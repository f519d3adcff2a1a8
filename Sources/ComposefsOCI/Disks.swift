public import ComposefsBytes
import ComposefsConcurrency
public import ComposefsDisks
import ComposefsImageStore

extension Store {
    /// The snapshots of the writable disks of virtual machines.
    public var snapshots: SnapshotStore { SnapshotStore(images) }

    /// Makes what a virtual machine boots an image from; see `ImageDisks.make`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - kind: what is made.
    ///   - image: the image's name, as for `image`.
    ///   - tree: which tree the disk shows.
    ///   - size: the size of a flat disk in bytes. It then has a journal, and can be mounted for writing. Without a size it has no room for anything
    ///     else.
    ///   - path: a file, which is replaced; for kinds with several files (`DiskKind.isDirectory`) a directory, which must be missing or empty.
    /// - Returns: the files that were made, with their sizes; `DiskReport.layerPaths` has those of layers.
    /// - Throws: `DiskError`, `ErofsError`, `Ext4Error`, `ImageStoreError`, `RepositoryError`, `SystemError`.
    @discardableResult
    public func makeDisk(
        _ kind: DiskKind, of image: some ByteStringConvertible, _ tree: DiskTree = .oci, size: UInt64? = nil,
        at path: some ByteStringConvertible
    ) throws -> DiskReport {
        try ImageDisks(images).make(kind, of: try self.image(image), tree, size: size, at: path.byteString)
    }

    /// Makes a disk on another thread; otherwise as the blocking form.
    @discardableResult
    public func makeDisk(
        _ kind: DiskKind, of image: some ByteStringConvertible, _ tree: DiskTree = .oci, size: UInt64? = nil,
        at path: some ByteStringConvertible
    ) async throws -> DiskReport {
        let (image, path) = (image.byteString, path.byteString)
        return try await onOwnThread { try makeDisk(kind, of: image, tree, size: size, at: path) }
    }
}

extension Store {
    /// Makes a disk of an image and keeps it in the store, whose objects machines open by their paths; one that is kept already is returned. See
    /// `ImageDisks.keep`; `PullOptions.disks` makes disks while an image is pulled. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - request: what is made.
    ///   - image: the image's name, as for `image`.
    ///   - observer: receives the steps; none, if the store keeps the disk already.
    /// - Throws: as `makeDisk`.
    @discardableResult
    public func keepDisk(
        _ request: DiskRequest, of image: some ByteStringConvertible, observer: (@Sendable (DiskStep) -> Void)? = nil
    ) throws -> KeptDisk {
        try ImageDisks(images).keep(request, of: try self.image(image), observer: observer)
    }

    /// Keeps a disk on another thread; otherwise as the blocking form.
    @discardableResult
    public func keepDisk(
        _ request: DiskRequest, of image: some ByteStringConvertible, observer: (@Sendable (DiskStep) -> Void)? = nil
    ) async throws -> KeptDisk {
        let image = image.byteString
        return try await onOwnThread { try keepDisk(request, of: image, observer: observer) }
    }
}

extension KeptDisk {
    /// The files that hold one layer each, from the lowest layer on: what a stack of overlayfs is mounted of. Empty for kinds without such files.
    public var layerPaths: [ByteString] { files.filter { $0.diffID != nil }.map(\.path) }
}

extension DiskReport {
    /// The files that hold one layer each, from the lowest layer on: what a stack of overlayfs is mounted of. Empty for kinds without such files.
    public var layerPaths: [ByteString] { files.filter { $0.diffID != nil }.map(\.path) }
}
