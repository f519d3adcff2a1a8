/// The compression format of a blob.
public enum CompressionFormat: Sendable, Hashable, CaseIterable {
    /// Not compressed.
    case none
    /// RFC 1952, one or more members.
    case gzip
    /// RFC 8878, one or more frames, including skippable frames.
    case zstd

    /// `none`, `gzip` or `zstd`, for messages.
    public var name: String {
        switch self {
        case .none: "none"
        case .gzip: "gzip"
        case .zstd: "zstd"
        }
    }

    /// The format that the first four bytes of a blob indicate. Fewer bytes than a magic number count as `none`.
    public static func detect(_ prefix: UnsafeRawBufferPointer) -> CompressionFormat {
        if prefix.count >= 2, prefix[0] == 0x1f, prefix[1] == 0x8b { return .gzip }
        if prefix.count >= 4 {
            var isFrame = true
            for index in 0..<4 where !ZstdMagic.matches(prefix[index], at: index, of: .data) { isFrame = false }
            if isFrame { return .zstd }
            var isSkippable = true
            for index in 0..<4 where !ZstdMagic.matches(prefix[index], at: index, of: .skippable) { isSkippable = false }
            if isSkippable { return .zstd }
        }
        return .none
    }
}

/// The two magic numbers that may begin a frame (RFC 8878, sections 3.1.1 and 3.1.2).
///
/// They are checked here because libzstd may have been built to accept formats older than version 1.
enum ZstdMagic {
    enum Kind { case data, skippable }

    static func matches(_ byte: UInt8, at index: Int, of kind: Kind) -> Bool {
        switch (kind, index) {
        case (.data, 0): byte == 0x28
        case (.data, 1): byte == 0xb5
        case (.data, 2): byte == 0x2f
        case (.data, 3): byte == 0xfd
        case (.skippable, 0): byte & 0xf0 == 0x50
        case (.skippable, 1): byte == 0x2a
        case (.skippable, 2): byte == 0x4d
        case (.skippable, 3): byte == 0x18
        default: false
        }
    }
}
