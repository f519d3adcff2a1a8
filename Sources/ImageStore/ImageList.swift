public import ComposefsBytes
import ComposefsEROFS
public import ComposefsHashing
import ComposefsOCIModel
import ComposefsRepository

/// One line of `cfsoci images`.
public struct ImageSummary: Sendable {
    /// The tag.
    public var name: ByteString
    /// Of the manifest.
    public var manifestDigest: ContentDigest
    /// Of the config.
    public var configDigest: ContentDigest
    /// The image ID in the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// All EROFS images, those for booting too.
    public var imageIDs: [ObjectID]
    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool
    /// From the config; empty for an artifact.
    public var architecture: String
    /// From the config; empty for an artifact.
    public var os: String
    /// The variant of the architecture, if the config has one.
    public var variant: String?
    /// From the config, as RFC 3339 text.
    public var created: String?
    /// The sum of the layers' blobs in bytes, as the manifest states them.
    public var size: UInt64
    /// The number of layers in the manifest.
    public var layerCount: Int
    /// The number of artifacts in the store that are recorded as referrers of the image.
    public var referrerCount: Int
}

/// A tag whose image cannot be read.
public struct BrokenImage: Sendable {
    /// The tag.
    public var name: ByteString
    /// The digest of the manifest that it refers to.
    public var manifestDigest: ContentDigest
    /// One line that says what is wrong.
    public var reason: String
}

extension ImageStore {
    /// All tagged images by name; those that cannot be read are listed separately.
    public func list() throws -> (images: [ImageSummary], broken: [BrokenImage]) {
        var images: [ImageSummary] = []
        var broken: [BrokenImage] = []
        for tag in try tags() {
            do {
                guard let image = try image(tag.manifestDigest) else {
                    throw ImageStoreError.damaged(stream: StreamName.manifest(tag.manifestDigest), .missing(tag: nil))
                }
                images.append(
                    ImageSummary(
                        name: tag.name, manifestDigest: tag.manifestDigest, configDigest: image.configDigest,
                        imageID: image.imageID(repository.erofsFormats.default), imageIDs: image.allImageIDs,
                        isContainer: image.isContainer,
                        architecture: image.config?.architecture ?? "", os: image.config?.os ?? "", variant: image.config?.variant,
                        created: image.config?.created,
                        size: image.manifest.layers.map(\.size).saturatingSum,
                        layerCount: image.manifest.layers.count, referrerCount: try referrers(of: tag.manifestDigest).count))
            } catch {
                broken.append(BrokenImage(name: tag.name, manifestDigest: tag.manifestDigest, reason: "\(error)"))
            }
        }
        return (images, broken)
    }
}
