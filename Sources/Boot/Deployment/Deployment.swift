public import ComposefsBytes
public import ComposefsHashing
import ComposefsJSON

/// An image that is kept to be booted, with its state: `state/deploy/ID` beside the repository.
public struct Deployment: Sendable, Equatable {
    /// The image for booting.
    public var id: ObjectID
    /// What was recorded when it was prepared; nil for a deployment of another program.
    public var record: DeploymentRecord?
    /// Whether it is kept although nothing else needs it.
    public var isPinned: Bool
    /// Whether its `/var` is its own, and not the one that deployments share.
    public var hasOwnVar: Bool
}

/// What is known about the image of a deployment.
public struct DeploymentRecord: Sendable, Equatable {
    /// The name of the image when it was prepared.
    public var image: ByteString
    /// Nil for an image that was made from a directory.
    public var manifestDigest: ContentDigest?
    public var title: ByteString?
    /// The version of its kernel.
    public var kernel: ByteString?
    /// Seconds since 1970.
    public var prepared: Int64

    private static let currentVersion: Int64 = 1

    var bytes: [UInt8] {
        let document: JSONValue = [
            "version": .integer(Self.currentVersion), "image": Self.text(image),
            "manifestDigest": manifestDigest.map { .string($0.description) } ?? .null, "title": title.map(Self.text) ?? .null,
            "kernel": kernel.map(Self.text) ?? .null, "prepared": .string(RFC3339.text(prepared)),
        ]
        return document.prettyBytes + [UInt8(ascii: "\n")]
    }

    private static func text(_ bytes: ByteString) -> JSONValue { .string(bytes.utf8Text ?? bytes.description) }

    /// Nil if the text is not such a record: what it says is for people, so nothing depends on it.
    init?(_ text: [UInt8]) {
        guard let document = try? JSONValue.parse(text), document["version"]?.int64 == Self.currentVersion,
            let image = document["image"]?.string, let time = document["prepared"]?.string, let prepared = RFC3339.parse(time)?.seconds
        else { return nil }
        self.init(
            image: ByteString(image), manifestDigest: document["manifestDigest"]?.string.flatMap { ContentDigest($0) },
            title: document["title"]?.string.map { ByteString($0) }, kernel: document["kernel"]?.string.map { ByteString($0) },
            prepared: prepared)
    }

    init(image: ByteString, manifestDigest: ContentDigest?, title: ByteString?, kernel: ByteString?, prepared: Int64) {
        self.image = image
        self.manifestDigest = manifestDigest
        self.title = title
        self.kernel = kernel
        self.prepared = prepared
    }
}
