public import ComposefsBytes
public import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// The record of a disk that the store keeps for an image.
public struct DiskEntry: Sendable, Hashable {
    /// The image.
    public var manifestDigest: ContentDigest
    /// Nil for one that another version of this program has made: it is kept, and not used.
    public var request: DiskRequest?
    /// The last component of the record's name; see `DiskRequest.key`.
    public var key: ByteString
    /// The disk; nil if it was made by another version, or is damaged.
    public var disk: KeptDisk?
    /// In bytes; nil if the stream cannot be read.
    public var size: UInt64?
}

extension ImageDisks {
    /// The disks that the store keeps, in ascending order of their images' digests and of their keys.
    ///
    /// - Parameter manifest: only those of this image.
    /// - Throws: `RepositoryError` if the records cannot be listed.
    public func list(of manifest: ContentDigest? = nil) throws -> [DiskEntry] {
        try records(of: manifest).map { record in
            var entry = DiskEntry(manifestDigest: record.subject, request: DiskRequest(key: record.key), key: record.key)
            guard let stream = try? repository.stream(record.stream), let reader = try? repository.openStream(stream) else { return entry }
            entry.size = reader.totalSize
            if let request = entry.request, let (_, chainID) = DiskRecord.parse(stream: record.stream),
                let diffIDs = (try? images.image(record.subject))??.config?.diffIDs, chainID == ContentDigest.chainID(of: diffIDs)
            {
                entry.disk = try? read(request, chainID, diffIDs, stream)
            }
            return entry
        }
    }

    /// Removes records of an image's disks, durably. What they kept stays until the next prune or garbage collection.
    ///
    /// - Parameter isRemoved: whether the record with a key is removed.
    /// - Returns: the keys of the removed records.
    @discardableResult
    public func remove(of manifest: ContentDigest, where isRemoved: (ByteString) -> Bool = { _ in true }) throws -> [ByteString] {
        try records(of: manifest).map(\.key).filter { key in
            try isRemoved(key) && repository.removeStreamReference(DiskRecord.path(manifest, key))
        }
    }

    /// A record's image, key, and the name of the stream that it leads to.
    struct Record {
        /// Below `streams/refs/`.
        var name: ByteString
        var subject: ContentDigest
        var key: ByteString
        var stream: ByteString

        /// - Parameter reference: below the directory of disks. Nil if its name is not that of a record.
        init?(_ reference: Reference) {
            name = DiskRecord.prefix + reference.name
            guard let parsed = SubjectRecord.parse(name) else { return nil }
            (subject, key) = parsed
            stream = reference.entry
        }
    }

    /// Records whose names can be read.
    func records(of manifest: ContentDigest? = nil) throws -> [Record] {
        try repository.streamReferences(under: DiskRecord.directory).compactMap(Record.init)
            .filter { manifest == nil || $0.subject == manifest }
    }
}
