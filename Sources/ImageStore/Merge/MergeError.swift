public import ComposefsBytes

/// Why a layer cannot be applied to the lower ones. Always names the entry.
public struct MergeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The entry's path in the archive.
    public var path: ByteString
    /// The offset of its header, in bytes from the start of the archive.
    public var offset: UInt64
    public var reason: String
    /// The limit in bytes, if the tree took more memory than is allowed.
    public var memoryLimit: UInt64?

    init(path: ByteString, offset: UInt64, reason: String) {
        self.path = path
        self.offset = offset
        self.reason = reason
    }

    public var description: String { "entry \"\(path)\" at byte \(offset) of the archive: \(reason)" }
}
