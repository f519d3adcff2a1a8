public import ComposefsBytes

/// Why a layer cannot be laid over those below it. Always names the entry.
public struct MergeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The entry's path as the archive has it.
    public var path: ByteString
    /// Where its header begins, in bytes from the archive's start.
    public var offset: UInt64
    public var reason: String

    public var description: String { "entry \"\(path)\" at byte \(offset) of the archive: \(reason)" }
}
