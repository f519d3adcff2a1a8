public import ComposefsBytes

/// Why an archive could not be read.
public struct TarError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The block is no header: the sum of its bytes is not what its checksum field says.
        case checksum
        /// A header field is not a number, negative, or larger than it may be.
        case badNumber(field: String, NumberFault)
        /// The archive ends inside this part of an entry.
        case truncated(String)
        /// A zero block and then something that is not zero.
        case strayZeroBlock
        /// A PAX or GNU long name header and then no entry.
        case danglingExtension
        /// Two extension headers of one kind before one entry.
        case duplicateExtension(String)
        /// Extension headers of one entry that hold more than the limit.
        case extensionTooLarge(limit: UInt64)
        /// A PAX record is not `length key=value`; the text says what is wrong with it.
        case badRecord(String)
        /// A PAX record whose value cannot be used.
        case badValue(key: ByteString, String)
        case nulInName
        case emptyLinkTarget
        case linkTargetTooLong(limit: Int)
        case pathTooLong(bytes: Int, limit: Int)
        /// A sparse file whose map cannot be used; the text says what is wrong with it.
        case badSparse(String)
        /// A device in a header format without device numbers.
        case noDeviceNumbers
        /// `skipExternal` was called where no external content begins.
        case notAtExternalContent
    }

    /// What is wrong with a number.
    public enum NumberFault: Hashable, Sendable {
        case notANumber, negative, tooLarge
        /// A user or group id of 4294967295.
        case noOwner
    }

    /// Where the block or entry begins, in bytes from the start of the archive.
    public var offset: UInt64
    /// The entry, where its name is known.
    public var path: ByteString?
    public var reason: Reason

    public init(offset: UInt64, path: ByteString?, reason: Reason) {
        self.offset = offset
        self.path = path
        self.reason = reason
    }

    public var description: String {
        let place = path.map { "tar entry \(Self.shown($0)) at byte \(offset)" } ?? "tar archive, byte \(offset)"
        return place + ": " + reason.text
    }

    private static func shown(_ path: ByteString) -> String {
        path.count > 512 ? ByteString(path.bytes.prefix(512)).description + "…" : path.description
    }
}

extension TarError.Reason {
    var text: String {
        switch self {
        case .checksum: "this is not a tar header (wrong checksum)"
        case .badNumber(let field, .notANumber): "\(field) is not a number"
        case .badNumber(let field, .negative): "\(field) is negative"
        case .badNumber(let field, .tooLarge): "\(field) is too large"
        case .badNumber(let field, .noOwner): "\(field): " + TarHeader.noOwner
        case .truncated(let part): "the archive ends inside \(part)"
        case .strayZeroBlock: "a single block of zeros stands between two entries"
        case .danglingExtension: "an extension header is followed by no entry"
        case .duplicateExtension(let kind): "two \(kind) headers stand before one entry"
        case .extensionTooLarge(let limit): "its extension headers hold more than \(limit) bytes"
        case .badRecord(let what): "malformed PAX record: \(what)"
        case .badValue(let key, let what): "PAX record \(ByteString(key.bytes.prefix(64))): \(what)"
        case .nulInName: "a name holds a NUL byte"
        case .emptyLinkTarget: "the link has no target"
        case .linkTargetTooLong(let limit): "the link's target is longer than \(limit) bytes"
        case .pathTooLong(let bytes, let limit): "its path has \(bytes) bytes; Linux takes \(limit)"
        case .badSparse(let what): "the sparse file cannot be read: \(what)"
        case .noDeviceNumbers: "a device without device numbers"
        case .notAtExternalContent: "a file's content stands where the archive has something else"
        }
    }
}

/// A fault whose place the parser adds.
struct TarFault: Error {
    var reason: TarError.Reason
    init(_ reason: TarError.Reason) { self.reason = reason }
}
