public import ComposefsBytes

/// The reason why a dumpfile was refused.
public struct DumpfileError: Error, Equatable, CustomStringConvertible {
    /// A field of a line, named as in the format.
    public enum Field: String, Sendable {
        case line, path, size, mode, nlink, uid, gid, rdev, mtime, payload, content, digest
        case attribute = "extended attribute"
    }

    /// The line number, starting at 1; 0 for the file as a whole.
    public var line: Int
    public var field: Field
    /// The path of the line as in the file, if it is known.
    public var path: ByteString?
    public var reason: String

    public init(line: Int, field: Field, path: ByteString? = nil, reason: String) {
        self.line = line
        self.field = field
        self.path = path
        self.reason = reason
    }

    public var description: String {
        let location = line == 0 ? "dumpfile" : "dumpfile line \(line)"
        let subject = path.map { " (\($0))" } ?? ""
        return "\(location)\(subject): \(field.rawValue): \(reason)"
    }
}

/// Limits of the format (composefs-dump(5)).
public enum DumpfileLimits {
    /// The length of an unescaped path in bytes.
    public static let path = 4096
    /// The length of one name in a path in bytes; the limit of Linux and EROFS.
    public static let name = 255
    /// The size of inline content in bytes.
    public static let inlineContent = 512
    /// The length of a symlink target in bytes: `PATH_MAX` without the NUL. The reference implementation reads at most 1,024.
    public static let linkTarget = 4095
    public static let attributeName = 255
    public static let attributeValue = 65535
    /// The length of all attribute names of one inode together, in bytes.
    public static let attributeNames = 65535
    /// The size of the largest file in EROFS in bytes: 1,024 chunks of 2^43 bytes, whose addresses fill one block.
    public static let fileSize: UInt64 = 1 << 53
}
