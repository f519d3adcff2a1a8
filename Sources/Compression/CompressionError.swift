/// Why compressed bytes could not be unpacked.
public struct CompressionError: Error, Hashable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// There is no gzip member or zstd frame at all.
        case empty
        /// The bytes end inside a member or frame.
        case truncated
        /// The bytes do not begin with the format's magic number.
        case notTheFormat
        /// What follows a complete member or frame is not another one.
        case trailingGarbage
        /// A field of the member's header has a value that the format does not allow.
        case badHeader(String)
        /// The deflate or zstd data is damaged.
        case corrupt(String)
        /// The checksum or length that the stream carries is not that of the unpacked bytes.
        case checksum
        /// The frame was made with a dictionary, which an image does not carry.
        case dictionary
        /// Unpacking needs more memory than the limit.
        case windowTooLarge
        /// The unpacked bytes are more than the caller wants.
        case tooLong(limit: Int)
        /// The library had no memory.
        case outOfMemory
    }

    public var format: CompressionFormat
    /// How many compressed bytes had been taken when the fault showed.
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
            case .badHeader(let field): "the \(unit)'s header is wrong: \(field)"
            case .corrupt(let detail): "the data is damaged: \(detail)"
            case .checksum: "the checksum of the unpacked bytes is wrong"
            case .dictionary: "the frame needs a dictionary, which images do not have"
            case .windowTooLarge: "the frame needs a window of more than 128 MiB"
            case .tooLong(let limit): "it unpacks to more than \(limit) bytes"
            case .outOfMemory: "out of memory"
            }
        return "\(format.name) data, byte \(offset): \(what)"
    }
}
