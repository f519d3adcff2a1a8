public import ComposefsBytes

/// Why a layer cannot be laid over those below it. Always names the entry.
public struct MergeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The entry's path as the archive has it.
    public var path: ByteString
    /// Where its header begins, in bytes from the archive's start.
    public var offset: UInt64
    public var reason: String
    /// The limit, in bytes, where the tree took more memory than is allowed.
    public var memoryLimit: UInt64?

    init(path: ByteString, offset: UInt64, reason: String) {
        self.path = path
        self.offset = offset
        self.reason = reason
    }

    public var description: String { "entry \"\(path)\" at byte \(offset) of the archive: \(reason)" }
}
