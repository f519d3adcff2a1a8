/// Decompresses a stream incrementally, directly into the caller's buffer.
///
/// gzip: all members are read; the header fields, CRC-32 and length of each are checked. zstd: all frames are read, including skippable
/// frames, and checksums are verified; windows above 128 MiB and dictionaries are refused. The data after the last member or frame must be
/// another one. Padding and garbage are errors, because tools disagree about whether such bytes belong to the layer.
///
/// Memory use does not depend on the data: 90 KiB for gzip, the frame's window for zstd.
public struct Decompressor: ~Copyable {
    public let format: CompressionFormat
    /// The number of compressed bytes consumed so far.
    public private(set) var consumed: UInt64 = 0
    /// The number of decompressed bytes produced so far.
    public private(set) var produced: UInt64 = 0
    private let gzip: GzipDecoder?
    private let zstd: ZstdDecoder?

    public init(_ format: CompressionFormat) {
        self.format = format
        gzip = format == .gzip ? GzipDecoder() : nil
        zstd = format == .zstd ? ZstdDecoder() : nil
    }

    /// Consumes bytes from the front of `input` and fills `output`.
    ///
    /// Buffers of 256 KiB and more reach the library's full speed.
    ///
    /// - Parameters:
    ///   - input: Compressed bytes. The call removes what it consumes from the front. With an empty input, the decoder flushes what it
    ///     holds.
    ///   - output: The buffer to fill.
    /// - Returns: The number of bytes written. It is less than `output` holds, or 0, only when `input` is used up.
    /// - Throws: `CompressionError`. The decompressor must not be used after that.
    public mutating func decompress(
        _ input: inout UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(CompressionError) -> Int {
        guard let target = output.baseAddress, output.count > 0 else { return 0 }
        var filled = 0
        let before = input.count
        defer {
            consumed &+= UInt64(before - input.count)
            produced &+= UInt64(filled)
        }
        do {
            if let gzip {
                try gzip.decode(&input, target, output.count, &filled)
            } else if let zstd {
                try zstd.decode(&input, target, output.count, &filled)
            } else {
                filled = min(input.count, output.count)
                if let source = input.baseAddress { target.copyMemory(from: source, byteCount: filled) }
                input = UnsafeRawBufferPointer(rebasing: input[filled...])
            }
        } catch {
            throw CompressionError(format: format, offset: consumed &+ UInt64(before - input.count), reason: error.reason)
        }
        return filled
    }

    /// Checks that the stream is complete. Call this when there is no more input and `decompress` has returned 0.
    ///
    /// - Throws: `CompressionError` if the data ends inside a member or frame, or if there was no data.
    public mutating func finish() throws(CompressionError) {
        let state = gzip?.end ?? zstd?.end ?? .complete
        switch state {
        case .complete: break
        case .nothing: throw CompressionError(format: format, offset: consumed, reason: .empty)
        case .inside: throw CompressionError(format: format, offset: consumed, reason: .truncated)
        }
    }
}

// Only this owner reaches the decoders, and it cannot be copied.
extension Decompressor: @unchecked Sendable {}

/// What the end of the input would mean in the decoder's current state.
enum EndState {
    case nothing, inside, complete
}

/// An error without its offset, which the decompressor adds.
struct DecodeFault: Error {
    var reason: CompressionError.Reason
    init(_ reason: CompressionError.Reason) { self.reason = reason }
}
