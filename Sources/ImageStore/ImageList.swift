public import ComposefsBytes
import ComposefsEROFS
public import ComposefsHashing
import ComposefsOCIModel
import ComposefsRepository

/// One line of `cfsoci images`.
public struct ImageSummary: Sendable {
    /// The tag.
    public var name: ByteString
    /// Of the manifest's bytes.
    public var manifestDigest: ContentDigest
    /// Of the config's bytes.
    public var configDigest: ContentDigest
    /// In the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool
    /// As the config has it; empty for an artifact.
    public var architecture: String
    /// As the config has it; empty for an artifact.
    public var os: String
    /// Of the architecture, where the config says one.
    public var variant: String?
    /// RFC 3339, as the config has it.
    public var created: String?
    /// Bytes of the layers' blobs, as the manifest announces them.
    public var size: UInt64
    /// Layers of the manifest.
    public var layerCount: Int
    /// Artifacts recorded as belonging to the image that are here.
    public var referrerCount: Int
}

/// A tag whose image cannot be read.
public struct BrokenImage: Sendable {
    /// The tag.
    public var name: ByteString
    /// The manifest that it stands for.
    public var manifestDigest: ContentDigest
    /// One line that says what is wrong.
    public var reason: String
}

extension ImageStore {
    /// All tagged images by name; those that cannot be read are told apart, not left out.
    public func list() throws -> (images: [ImageSummary], broken: [BrokenImage]) {
        var images: [ImageSummary] = []
        var broken: [BrokenImage] = []
        for tag in try tags() {
            do {
                guard let image = try image(tag.manifestDigest) else {
                    throw ImageStoreError.damaged(stream: StreamName.manifest(tag.manifestDigest), "is missing")
                }
                images.append(
                    ImageSummary(
                        name: tag.name, manifestDigest: tag.manifestDigest, configDigest: image.configDigest,
                        imageID: image.imageID(repository.erofsFormats.default), isContainer: image.isContainer,
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
