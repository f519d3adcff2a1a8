public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing

/// Names of an image's streams in `streams/`. A digest's text holds neither `/` nor NUL, so each is one file name.
public enum StreamName {
    /// The prefix of a manifest's stream; its digest follows.
    public static let manifestPrefix: ByteString = "oci-manifest-"
    /// The prefix of a config's stream; its digest follows.
    public static let configPrefix: ByteString = "oci-config-"
    /// The prefix of a layer's stream; the diff ID, or the digest of an artifact's blob, follows.
    public static let layerPrefix: ByteString = "oci-layer-"
    /// The prefix of the stream of a blob that belongs to no image; its digest follows.
    public static let blobPrefix: ByteString = "oci-blob-"
    /// The prefix of the stream of an EROFS image of one layer in a stack; the stack's chain ID follows.
    package static let layerImagePrefix: ByteString = "oci-erofs-"

    /// The stream that holds the EROFS image of the highest layer of a stack.
    package static func layerImage(_ chainID: ContentDigest) -> ByteString { layerImagePrefix + ByteString(chainID.description) }

    /// The stream that holds a manifest.
    public static func manifest(_ digest: ContentDigest) -> ByteString { manifestPrefix + ByteString(digest.description) }
    /// The stream that holds a config.
    public static func config(_ digest: ContentDigest) -> ByteString { configPrefix + ByteString(digest.description) }

    /// The stream of a layer. `identifier` is the diff ID of an image's layer or the digest of an artifact's blob.
    public static func layer(_ identifier: ContentDigest) -> ByteString { layerPrefix + ByteString(identifier.description) }

    /// The stream of a blob that belongs to no image; see `ImageStore.storeBlob`.
    public static func blob(_ digest: ContentDigest) -> ByteString { blobPrefix + ByteString(digest.description) }

    /// The digest in a stream's name; nil if the name is not of that kind.
    public static func digest(in name: ByteString, after prefix: ByteString) -> ContentDigest? {
        guard name.hasPrefix(prefix), let text = ByteString(Array(name.bytes.dropFirst(prefix.count))).utf8Text else { return nil }
        return ContentDigest(text)
    }
}

/// The names of references in config streams and manifest streams.
public enum ReferenceKey {
    /// The EROFS image in format V2.
    public static let image = "composefs.image"
    /// The EROFS image in format V1 or V0.
    public static let imageV1 = "composefs.image.v1"
    /// The prefix of all references to images for booting.
    public static let bootPrefix = "composefs.image.boot"
    /// The image for booting in format V2, default xattr mode.
    public static let bootImage = "composefs.image.boot"
    /// The image for booting in format V1 or V0, default xattr mode.
    public static let bootImageV1 = "composefs.image.boot.v1"

    /// An image for booting, for an xattr mode; modes other than the default one are part of the name.
    public static func bootImage(_ version: ErofsVersion, _ filtering: XattrFiltering = .allowlistOnly) -> String {
        let key = version == .v2 ? bootImage : bootImageV1
        return filtering == .allowlistOnly ? key : "\(key).xattrs=\(filtering.rawValue)"
    }

    /// Whether a reference is to an image for booting in this xattr mode.
    package static func isBootImage(_ key: String, _ filtering: XattrFiltering) -> Bool {
        key == bootImage(.v2, filtering) || key == bootImage(.v1, filtering)
    }

    /// In the manifest stream: the config stream's object.
    public static func config(_ digest: ContentDigest) -> String { "config:" + digest.description }

    static let blobPrefix = "blob:"

    /// In the manifest stream: the stream of a blob that is kept unchanged, see `PullOptions.keepsBlobs`.
    public static func blob(_ digest: ContentDigest) -> String { blobPrefix + digest.description }
}
