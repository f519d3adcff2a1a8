public import ComposefsBytes

/// Why a dumpfile was refused.
public struct DumpfileError: Error, Equatable, CustomStringConvertible {
    /// A field of a line, by its name in the format.
    public enum Field: String, Sendable {
        case line, path, size, mode, nlink, uid, gid, rdev, mtime, payload, content, digest
        case attribute = "extended attribute"
    }

    /// One-based; 0 where the file as a whole is meant.
    public var line: Int
    public var field: Field
    /// The path of the line where it is known, as it stands in the file.
    public var path: ByteString?
    public var reason: String

    public init(line: Int, field: Field, path: ByteString? = nil, reason: String) {
        self.line = line
        self.field = field
        self.path = path
        self.reason = reason
    }

    public var description: String {
        let place = line == 0 ? "dumpfile" : "dumpfile line \(line)"
        let subject = path.map { " (\($0))" } ?? ""
        return "\(place)\(subject): \(field.rawValue): \(reason)"
    }
}

/// Limits of the format (composefs-dump(5)).
public enum DumpfileLimits {
    /// Bytes of an unescaped path.
    public static let path = 4096
    /// Bytes of one name in a path; Linux and EROFS take no longer ones.
    public static let name = 255
    /// Bytes of content that may stand in a line.
    public static let inlineContent = 512
    /// Bytes of a symlink's target: `PATH_MAX` without its NUL. The reference's reader takes 1,024 at most.
    public static let linkTarget = 4095
    public static let attributeName = 255
    public static let attributeValue = 65535
    /// Bytes of all attribute names of one inode together.
    public static let attributeNames = 65535
    /// Size in bytes of a file that EROFS can hold: 1,024 chunks of 2^43 bytes, whose addresses fill one block.
    public static let fileSize: UInt64 = 1 << 53
}
