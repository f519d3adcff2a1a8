public import ComposefsBytes

/// The reason why an archive could not be read.
public struct TarError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The block is not a header: its checksum field does not match its bytes.
        case checksum
        /// A header field is not a number, is negative, or is too large.
        case badNumber(field: String, NumberFault)
        /// The archive ends inside this part of an entry.
        case truncated(String)
        /// A zero block that is followed by a block that is not zero.
        case strayZeroBlock
        /// A PAX or GNU long name header without an entry after it.
        case danglingExtension
        /// Two extension headers of the same kind before one entry.
        case duplicateExtension(String)
        /// The extension headers of one entry exceed the limit.
        case extensionTooLarge(limit: UInt64)
        /// A PAX record is not of the form `length key=value`; the text says why.
        case badRecord(String)
        /// The value of a PAX record is invalid; the text says why.
        case badValue(key: ByteString, String)
        case nulInName
        case emptyLinkTarget
        case linkTargetTooLong(limit: Int)
        case pathTooLong(bytes: Int, limit: Int)
        /// The map of a sparse file is invalid; the text says why.
        case badSparse(String)
        /// A device in a header format that has no device numbers.
        case noDeviceNumbers
        /// `skipExternal` was called when no external content begins.
        case notAtExternalContent
    }

    /// The reason why a number is invalid.
    public enum NumberFault: Hashable, Sendable {
        case notANumber, negative, tooLarge
        /// A user or group ID of 4294967295.
        case noOwner
    }

    /// The offset of the block or entry, in bytes from the start of the archive.
    public var offset: UInt64
    /// The entry's path, if it is known.
    public var path: ByteString?
    public var reason: Reason

    public init(offset: UInt64, path: ByteString?, reason: Reason) {
        self.offset = offset
        self.path = path
        self.reason = reason
    }

    public var description: String {
        let location = path.map { "tar entry \(Self.shown($0)) at byte \(offset)" } ?? "tar archive, byte \(offset)"
        return location + ": " + reason.text
    }

    private static func shown(_ path: ByteString) -> String {
        path.count > 512 ? ByteString(path.bytes.prefix(512)).description + "…" : path.description
    }
}

extension TarError.Reason {
    var text: String {
        switch self {
        case .checksum: "not a tar header (checksum mismatch)"
        case .badNumber(let field, .notANumber): "\(field) is not a number"
        case .badNumber(let field, .negative): "\(field) is negative"
        case .badNumber(let field, .tooLarge): "\(field) is too large"
        case .badNumber(let field, .noOwner): "\(field): " + TarHeader.noOwner
        case .truncated(let part): "the archive ends inside \(part)"
        case .strayZeroBlock: "a single block of zeros stands between two entries"
        case .danglingExtension: "an extension header has no entry after it"
        case .duplicateExtension(let kind): "two \(kind) headers precede one entry"
        case .extensionTooLarge(let limit): "its extension headers have more than \(limit) bytes"
        case .badRecord(let what): "malformed PAX record: \(what)"
        case .badValue(let key, let what): "PAX record \(ByteString(key.bytes.prefix(64))): \(what)"
        case .nulInName: "a name contains a NUL byte"
        case .emptyLinkTarget: "the link has no target"
        case .linkTargetTooLong(let limit): "the link's target is longer than \(limit) bytes"
        case .pathTooLong(let bytes, let limit): "its path has \(bytes) bytes; Linux allows \(limit)"
        case .badSparse(let what): "invalid sparse file: \(what)"
        case .noDeviceNumbers: "a device without device numbers"
        case .notAtExternalContent: "unexpected file content at this position"
        }
    }
}

/// An error without its position, which the parser adds.
struct TarFault: Error {
    var reason: TarError.Reason
    init(_ reason: TarError.Reason) { self.reason = reason }
}
