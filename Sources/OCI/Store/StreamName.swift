public import Bytes
public import Hashing

/// Names of an image's streams in `streams/`. A digest's text holds neither `/` nor NUL, so each is one file name.
public enum StreamName {
    public static let manifestPrefix: ByteString = "oci-manifest-"
    public static let configPrefix: ByteString = "oci-config-"
    public static let layerPrefix: ByteString = "oci-layer-"
    public static let blobPrefix: ByteString = "oci-blob-"

    public static func manifest(_ digest: ContentDigest) -> ByteString { manifestPrefix + ByteString(digest.description) }
    public static func config(_ digest: ContentDigest) -> ByteString { configPrefix + ByteString(digest.description) }

    /// `identifier` is the diff ID of an image's layer, the blob's digest of an artifact's.
    public static func layer(_ identifier: ContentDigest) -> ByteString { layerPrefix + ByteString(identifier.description) }

    /// The digest in a stream's name; nil where the name is not of that kind.
    public static func digest(in name: ByteString, after prefix: ByteString) -> ContentDigest? {
        guard name.hasPrefix(prefix), let text = ByteString(Array(name.bytes.dropFirst(prefix.count))).utf8Text else { return nil }
        return ContentDigest(text)
    }
}

/// Names of a config stream's and a manifest stream's references.
public enum ReferenceKey {
    /// The EROFS image in format V2.
    public static let image = "composefs.image"
    /// The EROFS image in format V1 or V0.
    public static let imageV1 = "composefs.image.v1"
    /// Everything that begins so is an image for booting.
    public static let bootPrefix = "composefs.image.boot"
    public static let bootImage = "composefs.image.boot"
    public static let bootImageV1 = "composefs.image.boot.v1"

    /// In the manifest stream: the config stream's object.
    public static func config(_ digest: ContentDigest) -> String { "config:" + digest.description }
}
