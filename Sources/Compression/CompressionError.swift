/// The reason why compressed bytes could not be decompressed.
public struct CompressionError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// There is no gzip member or zstd frame at all.
        case empty
        /// The bytes end inside a member or frame.
        case truncated
        /// The bytes do not begin with the format's magic number.
        case notTheFormat
        /// The bytes after a complete member or frame do not begin another one.
        case trailingGarbage
        /// A field of the gzip member's header has a value that the format does not allow.
        case badHeader(String)
        /// The deflate or zstd data is damaged.
        case corrupt(String)
        /// The checksum or the length in the stream does not match the decompressed bytes.
        case checksum
        /// The frame needs a dictionary, and images do not carry any.
        case dictionary
        /// Decompression needs more memory than the limit.
        case windowTooLarge
        /// The decompressed bytes are more than the caller accepts.
        case tooLong(limit: Int)
        /// The library could not allocate memory.
        case outOfMemory
    }

    public var format: CompressionFormat
    /// The number of compressed bytes that had been consumed when the error was found.
    public var offset: UInt64
    public var reason: Reason

    public init(format: CompressionFormat, offset: UInt64, reason: Reason) {
        self.format = format
        self.offset = offset
        self.reason = reason
    }

    public var description: String {
        let unit = format == .zstd ? "frame" : "member"
        let what =
            switch reason {
            case .empty: "there is no \(unit) at all"
            case .truncated: "the data ends in the middle of a \(unit)"
            case .notTheFormat: "this is not \(format.name) data"
            case .trailingGarbage: "bytes that are not \(format.name) data follow the last \(unit)"
            case .badHeader(let field): "invalid \(unit) header: \(field)"
            case .corrupt(let detail): "corrupt data: \(detail)"
            case .checksum: "checksum mismatch"
            case .dictionary: "the frame needs a dictionary, which images do not have"
            case .windowTooLarge: "the frame needs a window of more than 128 MiB"
            case .tooLong(let limit): "the decompressed data has more than \(limit) bytes"
            case .outOfMemory: "out of memory"
            }
        return "\(format.name) data, byte \(offset): \(what)"
    }
}
