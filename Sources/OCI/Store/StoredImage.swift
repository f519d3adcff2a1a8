public import EROFS
public import Hashing
import SplitStream

/// An image as the repository has it.
public struct StoredImage: Sendable {
    public let manifestDigest: ContentDigest
    /// The manifest stream's object.
    public let manifestStream: ObjectID
    public let manifest: Manifest
    public let configDigest: ContentDigest
    /// The config stream's object.
    public let configStream: ObjectID
    /// As it was pulled.
    public let configBytes: [UInt8]
    /// Nil for an artifact.
    public let config: ImageConfig?
    let references: [NamedReference]
    let manifestReferences: [NamedReference]

    public var isContainer: Bool { config != nil }

    /// What names the layers in the store, from bottom to top: diff IDs, or an artifact's blob digests.
    public var layerIdentifiers: [ContentDigest] { config?.diffIDs ?? manifest.layers.map(\.digest) }

    /// The split stream of a layer; nil where the config stream has no reference to it.
    public func layerStream(_ identifier: ContentDigest) -> ObjectID? {
        let name = identifier.description
        return references.first { $0.name == name }?.id ?? manifestReferences.first { $0.name == name }?.id
    }

    /// The EROFS image that the config refers to: one for V2, one for V0 and V1.
    public func imageID(_ version: ErofsVersion) -> ObjectID? {
        let key = version == .v2 ? ReferenceKey.image : ReferenceKey.imageV1
        return references.first { $0.name == key }?.id
    }

    /// The EROFS image for booting, default xattr mode.
    public func bootImageID(_ version: ErofsVersion) -> ObjectID? {
        let key = version == .v2 ? ReferenceKey.bootImage : ReferenceKey.bootImageV1
        return references.first { $0.name == key }?.id
    }

    /// All images for booting, by the name of the reference.
    public var bootImages: [(key: String, id: ObjectID)] {
        references.filter { $0.name.hasPrefix(ReferenceKey.bootPrefix) }.map { ($0.name, $0.id) }
    }
}
