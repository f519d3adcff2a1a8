internal import ComposefsCISAL
internal import ComposefsCZlib

/// A gzip member (RFC 1952) that is made of blocks, which may be packed in any order and on any thread: header, blocks, trailer, one after
/// the other, are the member. Equal content in equal blocks gives equal bytes, with any number of threads and on any processor; another
/// release of zlib may give others.
public enum GzipMember {
    /// How much of what stands before a block helps to pack it, in bytes: deflate's window.
    public static let dictionarySize = 32 << 10

    /// No name and no time, "unknown" for the system it was made on.
    public static let header: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]

    /// Ends the member: the checksum of all content, and its size in bytes modulo 2^32.
    public static func trailer(_ checksum: GzipChecksum) -> [UInt8] {
        [checksum.value, UInt32(truncatingIfNeeded: checksum.size)].flatMap { number in
            [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: number >> $0) }
        }
    }
}

/// The checksum (CRC-32) of a gzip member's content.
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

/// Packs blocks of gzip members, one after the other.
public struct GzipBlockCompressor: ~Copyable {
    private let stream: UnsafeMutablePointer<z_stream>
    private let piece: UnsafeMutableRawBufferPointer

    /// - Parameter level: 1, the fastest, to 9, the smallest.
    public init(level: Int32 = 6) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // Only fails when memory is exhausted: levels are held in their range.
        guard czlib_raw_deflate_init(stream, min(9, max(1, level))) == Z_OK else { fatalError("zlib has no memory for an encoder") }
        piece = .allocate(byteCount: 64 << 10, alignment: 16)
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
        piece.deallocate()
    }

    /// Packs one block.
    ///
    /// - Parameters:
    ///   - block: at most 1 GiB.
    ///   - dictionary: the last `GzipMember.dictionarySize` bytes before the block, or as many as there are.
    ///   - isLast: whether the member's content ends with the block. The last one may be empty.
    public mutating func pack(_ block: UnsafeRawBufferPointer, after dictionary: UnsafeRawBufferPointer, isLast: Bool) -> [UInt8] {
        deflateReset(stream)
        if let start = dictionary.baseAddress, !dictionary.isEmpty {
            deflateSetDictionary(stream, start.assumingMemoryBound(to: UInt8.self), UInt32(clamping: dictionary.count))
        }
        var packed: [UInt8] = []
        // It never writes through next_in; the field only lacks the const.
        stream.pointee.next_in = UnsafeMutableRawPointer(mutating: block.baseAddress)?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_in = UInt32(clamping: block.count)
        while true {
            stream.pointee.next_out = piece.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(clamping: piece.count)
            let status = deflate(stream, isLast ? Z_FINISH : Z_SYNC_FLUSH)
            let made = piece.count - Int(stream.pointee.avail_out)
            packed.append(contentsOf: UnsafeRawBufferPointer(rebasing: piece[..<max(0, min(made, piece.count))]))
            // With room left the flush is complete; a block that ends where the room does is asked once more, which makes nothing.
            if isLast ? status == Z_STREAM_END : stream.pointee.avail_out > 0 || status != Z_OK { return packed }
        }
    }
}

// The stream is reached through this owner alone, which cannot be copied.
extension GzipBlockCompressor: @unchecked Sendable {}

/// The libraries that pack, with their releases: what decides, beside level and content, which bytes they make.
public enum Encoders {
    public static func name(_ format: CompressionFormat) -> String {
        switch format {
        case .none: "none"
        case .gzip: "zlib-" + String(cString: zlibVersion())
        case .zstd: "zstd-" + ZstdCompressor.release
        }
    }
}
