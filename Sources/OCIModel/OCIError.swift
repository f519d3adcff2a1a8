public import ComposefsBytes

/// The reason why an image, one of its documents or its source was refused. The message is one line with the document and the member.
public enum OCIError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A manifest, index, config or layout file is malformed.
    case malformed(document: String, String)
    /// A document is well-formed, but of an unsupported kind.
    case unsupported(document: String, String)
    /// The text is not an image reference or platform.
    case invalidReference(ByteString, String)
    /// The index has no manifest for the platform; `available` lists the others.
    case noMatchingPlatform(wanted: Platform, available: [String])
    /// The tag is missing or not unique.
    case ambiguous(source: ByteString, String)
    /// The layout, archive or storage does not have the image, blob or file.
    case notFound(source: ByteString, String)
    /// The layout, archive or storage is damaged.
    case damaged(source: ByteString, String)

    public var description: String {
        switch self {
        case .malformed(let document, let what), .unsupported(let document, let what): "\(document): \(what)"
        case .invalidReference(let text, let what): "\"\(text.withoutSecrets)\": \(what)"
        case .noMatchingPlatform(let wanted, let available):
            available.isEmpty
                ? "the index lists no image for \(wanted)"
                : "the index lists no image for \(wanted), only for \(available.joined(separator: ", "))"
        case .ambiguous(let source, let what), .notFound(let source, let what), .damaged(let source, let what): "\(source): \(what)"
        }
    }
}

/// Quotes text from a document for a message: printable, and cut to `limit` bytes.
package func quoted(_ text: String, limit: Int = 100) -> String {
    let shown = ByteString(text.utf8.prefix(limit)).description
    return text.utf8.count > limit ? "\"\(shown)…\"" : "\"\(shown)\""
}

/// Limits of documents from all sources.
public enum ImageLimits {
    /// The size of a manifest or index that is pulled, in bytes, unless `PullLimits` says otherwise (distribution-spec: registries should
    /// accept at least 4 MiB).
    public static let manifestBytes = 4 << 20
    /// The largest manifest or index that is read at all, in bytes.
    public static let largestManifest = 64 << 20
    /// The size of a config, in bytes.
    public static let configBytes = 16 << 20
    /// The depth of nested indexes, unless `PullLimits` says otherwise.
    public static let indexDepth = 8
    /// The depth of nested indexes that `PullLimits` cannot exceed.
    public static let deepestIndex = 64
    /// The number of indexes that are read to find one manifest.
    public static let indexCount = 64
}
