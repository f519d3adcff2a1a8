public import ComposefsBytes

/// Why an image, a document of it or what holds it was refused. One line, with the document and the member at fault.
public enum OCIError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A manifest, index, config or layout file that is not what it should be.
    case malformed(document: String, String)
    /// Well formed, but of a kind that cannot be taken.
    case unsupported(document: String, String)
    /// Text that is no image reference or platform.
    case invalidReference(ByteString, String)
    /// No manifest for the platform; what the index offers instead.
    case noMatchingPlatform(wanted: Platform, available: [String])
    /// A tag is needed, or another one.
    case ambiguous(source: ByteString, String)
    /// The layout, archive or storage has no such image, blob or file.
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

/// Foreign text for a message: quoted, printable and not longer than it has to be.
package func quoted(_ text: String, limit: Int = 100) -> String {
    let shown = ByteString(text.utf8.prefix(limit)).description
    return text.utf8.count > limit ? "\"\(shown)…\"" : "\"\(shown)\""
}

/// What must hold for documents of any source before they are read.
public enum ImageLimits {
    /// Manifests and indexes that are pulled, in bytes, unless `PullLimits` says otherwise (distribution-spec: registries take 4 MiB at
    /// least).
    public static let manifestBytes = 4 << 20
    /// The largest manifest or index that is read at all, in bytes.
    public static let largestManifest = 64 << 20
    /// Image configs, in bytes.
    public static let configBytes = 16 << 20
    /// Indexes that name an index that names an index …, unless `PullLimits` says otherwise.
    public static let indexDepth = 8
    /// The same, whatever `PullLimits` says.
    public static let deepestIndex = 64
    /// Indexes that are read to find one manifest.
    public static let indexCount = 64
}
