package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
package import ComposefsRepository

/// The recorded diff ID of a layer: its split stream was published after its archive had been hashed and found to have this diff ID.
///
/// It is an extended attribute of the stream's object. Stores that other programs wrote, or that were copied without attributes, lack it;
/// their layers are hashed once, when a pull wants to reuse them.
package enum LayerHint {
    package static let attribute: ByteString = "user.cfsoci.diff-id"

    /// Without extended attributes of users nothing is recorded: that costs time later, not correctness.
    package static func set(_ diffID: ContentDigest, on stream: ObjectID, in repository: Repository) throws {
        let file = try repository.openObject(stream, verify: false)
        try? file.setExtendedAttribute(attribute, ByteString(diffID.description))
    }

    package static func isSet(_ diffID: ContentDigest, on stream: ObjectID, in repository: Repository) throws -> Bool {
        try text(on: stream, in: repository) == ByteString(diffID.description)
    }

    /// The recorded text; nil if there is none.
    package static func text(on stream: ObjectID, in repository: Repository) throws -> ByteString? {
        let file = try repository.openObject(stream, verify: false)
        return (try? file.extendedAttribute(attribute)) ?? nil
    }
}
