public import ComposefsEROFS
public import ComposefsHashing
public import ComposefsOCIModel
package import ComposefsSplitStream

/// An image in the repository.
public struct StoredImage: Sendable {
    /// Of the manifest.
    public let manifestDigest: ContentDigest
    /// The object of the manifest stream.
    public let manifestStream: ObjectID
    /// With its bytes as they were pulled.
    public let manifest: Manifest
    /// Of the config.
    public let configDigest: ContentDigest
    /// The object of the config stream.
    public let configStream: ObjectID
    /// The config's bytes as they were pulled.
    public let configBytes: [UInt8]
    /// Nil for an artifact.
    public let config: ImageConfig?
    let references: [NamedReference]
    let manifestReferences: [NamedReference]

    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool { config != nil }

    /// The names of the layers in the store, from bottom to top: diff IDs, or the digests of an artifact's blobs.
    public var layerIdentifiers: [ContentDigest] { config?.diffIDs ?? manifest.layers.map(\.digest) }

    /// The split stream of a layer; nil if the config stream has no reference to it.
    public func layerStream(_ identifier: ContentDigest) -> ObjectID? {
        let name = identifier.description
        return references.first { $0.name == name }?.id ?? manifestReferences.first { $0.name == name }?.id
    }

    /// The EROFS image that the config refers to: one for V2, one for V0 and V1.
    public func imageID(_ version: ErofsVersion) -> ObjectID? {
        let key = version == .v2 ? ReferenceKey.image : ReferenceKey.imageV1
        return references.first { $0.name == key }?.id
    }

    /// The EROFS images, by format: one reference serves V0 and V1, and is under V1 here.
    package var imageIDs: [ErofsVersion: ObjectID] {
        var images: [ErofsVersion: ObjectID] = [:]
        for version in [ErofsVersion.v1, .v2] { images[version] = imageID(version) }
        return images
    }

    /// `made`, and of the recorded images those of formats that are not among them.
    ///
    /// - Parameter keeps: leaves out those for which it is false.
    package func imageIDs(
        besides made: [ErofsVersion: ObjectID], where keeps: (ObjectID) throws -> Bool = { _ in true }
    ) rethrows -> [ErofsVersion: ObjectID] {
        var images = made
        if made[.v2] == nil, let old = imageID(.v2), try keeps(old) { images[.v2] = old }
        if made[.v1] == nil, made[.v0] == nil, let old = imageID(.v1), try keeps(old) { images[.v1] = old }
        return images
    }

    /// The EROFS image for booting that was made with this xattr mode.
    public func bootImageID(_ version: ErofsVersion, _ filtering: XattrFiltering = .allowlistOnly) -> ObjectID? {
        let key = ReferenceKey.bootImage(version, filtering)
        return references.first { $0.name == key }?.id
    }

    /// All EROFS images that the config refers to, those for booting too.
    package var allImageIDs: [ObjectID] {
        references.filter { $0.name == ReferenceKey.image || $0.name == ReferenceKey.imageV1 || $0.name.hasPrefix(ReferenceKey.bootPrefix) }
            .map(\.id)
    }

    /// All images for booting, by the name of the reference.
    public var bootImages: [(key: String, id: ObjectID)] {
        references.filter { $0.name.hasPrefix(ReferenceKey.bootPrefix) }.map { ($0.name, $0.id) }
    }

    /// The compressed blobs of layers that are kept: by their digests in the manifest, and with the streams that hold them.
    public var keptBlobs: [(digest: ContentDigest, stream: ObjectID)] { ReferenceKey.blobs(in: manifestReferences) }
}

extension ReferenceKey {
    package static func blobs(in references: [NamedReference]) -> [(digest: ContentDigest, stream: ObjectID)] {
        references.compactMap { reference in
            guard reference.name.hasPrefix(blobPrefix), let digest = ContentDigest(String(reference.name.dropFirst(blobPrefix.utf8.count)))
            else { return nil }
            return (digest, reference.id)
        }
    }
}
