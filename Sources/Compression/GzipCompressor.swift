internal import ComposefsCISAL
internal import ComposefsCZlib

/// A gzip member (RFC 1952) that is compressed in blocks, in any order and on any thread. The header, the blocks and the trailer,
/// concatenated, form the member.
///
/// The same content in the same blocks gives the same bytes, with any number of threads and on any processor. Another release of zlib may
/// give other bytes.
public enum GzipMember {
    /// How many bytes before a block help to compress it: the window of deflate.
    public static let dictionarySize = 32 << 10

    /// A header with no name, no time and an unknown operating system.
    public static let header: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]

    /// The end of the member: the CRC-32 of all content and its size in bytes modulo 2^32.
    public static func trailer(_ checksum: GzipChecksum) -> [UInt8] {
        [checksum.value, UInt32(truncatingIfNeeded: checksum.size)].flatMap { number in
            [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: number >> $0) }
        }
    }
}

/// A running CRC-32 of a gzip member's content.
public struct GzipChecksum: Sendable {
    fileprivate var value: UInt32 = 0
    fileprivate var size: UInt64 = 0

    public init() {}

    public mutating func update(_ content: UnsafeRawBufferPointer) {
        guard let start = content.baseAddress, !content.isEmpty else { return }
        value = crc32_gzip_refl(value, start.assumingMemoryBound(to: UInt8.self), UInt64(content.count))
        size &+= UInt64(content.count)
    }
}

/// Compresses the blocks of gzip members, one at a time.
public struct GzipBlockCompressor: ~Copyable {
    private let stream: UnsafeMutablePointer<z_stream>
    private let buffer: UnsafeMutableRawBufferPointer

    /// - Parameter level: From 1, the fastest, to 9, the smallest. Other values are clamped.
    public init(level: Int32 = 6) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // This fails only when memory is exhausted: the level is in range.
        guard czlib_raw_deflate_init(stream, min(9, max(1, level))) == Z_OK else { fatalError("zlib has no memory for an encoder") }
        buffer = .allocate(byteCount: 64 << 10, alignment: 16)
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
        buffer.deallocate()
    }

    /// Compresses one block.
    ///
    /// - Parameters:
    ///   - block: At most 1 GiB.
    ///   - dictionary: The last `GzipMember.dictionarySize` bytes before the block, or fewer near the start.
    ///   - isLast: Whether this block ends the member's content. Only the last block may be empty.
    public mutating func pack(_ block: UnsafeRawBufferPointer, after dictionary: UnsafeRawBufferPointer, isLast: Bool) -> [UInt8] {
        deflateReset(stream)
        if let start = dictionary.baseAddress, !dictionary.isEmpty {
            deflateSetDictionary(stream, start.assumingMemoryBound(to: UInt8.self), UInt32(clamping: dictionary.count))
        }
        var packed: [UInt8] = []
        // zlib never writes through next_in; the field just lacks the const.
        stream.pointee.next_in = UnsafeMutableRawPointer(mutating: block.baseAddress)?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_in = UInt32(clamping: block.count)
        while true {
            stream.pointee.next_out = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(clamping: buffer.count)
            let status = deflate(stream, isLast ? Z_FINISH : Z_SYNC_FLUSH)
            let made = buffer.count - Int(stream.pointee.avail_out)
            packed.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<max(0, min(made, buffer.count))]))
            // The flush is complete if room is left. If the output ends exactly at the buffer's end, one more call writes nothing.
            if isLast ? status == Z_STREAM_END : stream.pointee.avail_out > 0 || status != Z_OK { return packed }
        }
    }
}

// Only this owner reaches the stream, and it cannot be copied.
extension GzipBlockCompressor: @unchecked Sendable {}

/// The compression libraries and their versions, which determine the compressed bytes together with level and content.
public enum Encoders {
    public static func name(_ format: CompressionFormat) -> String {
        switch format {
        case .none: "none"
        case .gzip: "zlib-" + String(cString: zlibVersion())
        case .zstd: "zstd-" + ZstdCompressor.release
        }
    }
}
