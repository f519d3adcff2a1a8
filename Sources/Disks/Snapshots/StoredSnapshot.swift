import ComposefsBytes
public import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository
public import ComposefsSnapshotFormat
import ComposefsSplitStream

/// A snapshot in the store.
public struct StoredSnapshot: Sendable, Hashable {
    /// SHA-256 of the canonical descriptor.
    public let identity: ContentDigest
    public let descriptor: SnapshotDescriptor
    /// The object of the descriptor's stream.
    public let stream: ObjectID
    /// The object of the stream of the disk's content.
    public let upper: ObjectID
    /// The object of the parent's stream; nil if the store did not have it.
    public let parentStream: ObjectID?
    /// The object of the image's manifest stream; nil if the store did not have the image.
    public let imageStream: ObjectID?
}

/// Names in the repository.
enum SnapshotNames {
    /// The prefix of a descriptor's stream; its identity follows.
    static let descriptorPrefix: ByteString = "cfsoci-snapshot-sha256:"
    /// The prefix of the stream of a disk's content; the root of its Merkle tree follows, which the size is part of.
    static let upperPrefix: ByteString = "cfsoci-snapshot-upper-blake3:"
    /// The directory below `streams/refs` with the names of snapshots.
    static let references: ByteString = "snapshots"
    /// The directory below `streams/refs` with the images of named snapshots.
    static let images: ByteString = "snapshot-images"

    /// In a descriptor's stream, to that of the disk's content.
    static let upperKey = "upper"
    /// In a descriptor's stream, to that of the parent.
    static func parentKey(_ identity: ContentDigest) -> String { "parent:\(identity)" }
    /// In a descriptor's stream, to that of the image's manifest.
    static func imageKey(_ manifest: ContentDigest) -> String { "image:\(manifest)" }

    /// The content type of a descriptor's stream.
    static let contentType = UInt64(littleEndianText: "snapshot")

    static func stream(_ identity: ContentDigest) -> ByteString { descriptorPrefix + ByteString(identity.hex) }
    static func upperStream(_ root: Blake3Digest) -> ByteString { upperPrefix + ByteString(root.description) }

    /// The identity in a stream's name; nil if it is not the name of a descriptor's stream.
    static func identity(of stream: ByteString) -> ContentDigest? {
        guard stream.hasPrefix(descriptorPrefix), let hex = ByteString(Array(stream.bytes.dropFirst(descriptorPrefix.count))).utf8Text
        else {
            return nil
        }
        return ContentDigest("sha256:" + hex)
    }

    static func check(_ name: ByteString) throws(SnapshotError) {
        let refused = Array("/\\:".utf8)
        guard (1...255).contains(name.count), name.utf8Text != nil, let first = name.bytes.first, first != UInt8(ascii: "."),
            first != UInt8(ascii: "~"), !name.bytes.contains(where: { $0 < 0x20 || $0 == 0x7f || refused.contains($0) })
        else { throw .invalidName(name) }
    }
}

extension Repository {
    /// The snapshot of a descriptor's stream.
    ///
    /// - Parameter expected: the identity in the name that led to the stream.
    /// - Throws: `SnapshotFault`, `RepositoryError`.
    func snapshot(_ stream: ObjectID, expected: ContentDigest) throws -> StoredSnapshot {
        var reader = try openStream(stream, contentType: SnapshotNames.contentType)
        guard reader.totalSize <= UInt64(SnapshotDescriptor.byteLimit), case .external(let object)? = try reader.next(),
            try reader.next() == nil
        else { throw SnapshotFault.stream }
        let bytes = try readObject(object, limit: SnapshotDescriptor.byteLimit)
        let descriptor: SnapshotDescriptor
        do { descriptor = try SnapshotDescriptor(parsing: bytes) } catch { throw SnapshotFault.descriptor(error) }
        guard descriptor.canonicalBytes == bytes else { throw SnapshotFault.notCanonical }
        let identity = descriptor.identity
        guard identity == expected else { throw SnapshotFault.identity(found: identity) }
        guard let upper = reader.namedReference(SnapshotNames.upperKey) else { throw SnapshotFault.noUpper }
        return StoredSnapshot(
            identity: identity, descriptor: descriptor, stream: stream, upper: upper,
            parentStream: descriptor.parent.flatMap { reader.namedReference(SnapshotNames.parentKey($0)) },
            imageStream: reader.namedReference(SnapshotNames.imageKey(descriptor.imageManifest)))
    }
}
