public import ComposefsBytes

/// The reason why an image, one of its documents or its source was refused. The message is one line with the document and the member.
public enum OCIError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A manifest, index, config or layout file is malformed.
    case malformed(document: String, DocumentFault)
    /// A document or archive is well-formed, but of an unsupported kind.
    case unsupported(document: String, Unsupported)
    /// The text is not an image reference or platform.
    case invalidReference(ByteString, ReferenceFault)
    /// The index has no manifest for the platform; `available` lists the others.
    case noMatchingPlatform(wanted: Platform, available: [String])
    /// The tag is missing or not unique.
    case ambiguous(source: ByteString, Ambiguity)
    /// The layout, archive or storage does not have the image, blob or file.
    case notFound(source: ByteString, Missing)
    /// The layout, archive or storage is damaged.
    case damaged(source: ByteString, Damage)

    public var description: String {
        switch self {
        case .malformed(let document, let fault): "\(document): \(fault)"
        case .unsupported(let document, let form): "\(document): \(form)"
        case .invalidReference(let text, let fault): "\"\(text.withoutSecrets)\": \(fault)"
        case .noMatchingPlatform(let wanted, let available):
            available.isEmpty
                ? "the index lists no image for \(wanted)"
                : "the index lists no image for \(wanted), only for \(available.joined(separator: ", "))"
        case .ambiguous(let source, let ambiguity): "\(source): \(ambiguity)"
        case .notFound(let source, let item): "\(source): \(item)"
        case .damaged(let source, let damage): "\(source): \(damage)"
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
