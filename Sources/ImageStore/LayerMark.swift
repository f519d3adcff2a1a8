package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
package import ComposefsRepository

/// The mark that a layer's split stream was published after its archive had been hashed and found to have its diff ID.
///
/// It is an extended attribute of the stream's object and holds the diff ID. Stores that were written by others, or copied without
/// attributes, lack it; their layers are hashed once, when an image that is pulled wants to reuse them.
package enum LayerMark {
    package static let attribute: ByteString = "user.cfsoci.diff-id"

    /// A file system without user attributes keeps no marks: that costs time later, not correctness.
    package static func set(_ diffID: ContentDigest, on stream: ObjectID, in repository: Repository) throws {
        let file = try repository.openObject(stream, verify: false)
        try? file.setExtendedAttribute(attribute, ByteString(diffID.description))
    }

    package static func isSet(_ diffID: ContentDigest, on stream: ObjectID, in repository: Repository) throws -> Bool {
        try text(on: stream, in: repository) == ByteString(diffID.description)
    }

    /// What the mark says; nil where there is none.
    package static func text(on stream: ObjectID, in repository: Repository) throws -> ByteString? {
        let file = try repository.openObject(stream, verify: false)
        return (try? file.extendedAttribute(attribute)) ?? nil
    }
}
