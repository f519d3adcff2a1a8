/// Unpacks a stream piece by piece, straight into the caller's buffer.
///
/// gzip: every member; header fields, CRC-32 and length of each are checked. zstd: every frame, skippable ones and checksums included; no
/// window above 128 MiB, no dictionary. Whatever follows the last member or frame must be another one: padding and garbage are errors,
/// because nobody could say which bytes the layer has.
///
/// Memory does not depend on the data: 90 KiB for gzip; for zstd the frame's window.
public struct Decompressor: ~Copyable {
    public let format: CompressionFormat
    /// Compressed bytes taken so far.
    public private(set) var consumed: UInt64 = 0
    /// Bytes given out so far.
    public private(set) var produced: UInt64 = 0
    private let gzip: GzipDecoder?
    private let zstd: ZstdDecoder?

    public init(_ format: CompressionFormat) {
        self.format = format
        gzip = format == .gzip ? GzipDecoder() : nil
        zstd = format == .zstd ? ZstdDecoder() : nil
    }

    /// Takes bytes from the front of `input` and fills `output`.
    ///
    /// - Returns: how many bytes were written. Fewer than `output` holds, or none, only when `input` is used up; with an empty `input`
    ///   what the decoder still holds comes out. Buffers of 256 KiB and more reach the library's full speed.
    /// - Throws: `CompressionError`, after which the decompressor must not be used any more.
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

    /// To be called when there is no more input and `decompress` has returned 0.
    ///
    /// - Throws: when the data ends inside a member or frame, or there was none.
    public mutating func finish() throws(CompressionError) {
        let state = gzip?.end ?? zstd?.end ?? .complete
        switch state {
        case .complete: break
        case .nothing: throw CompressionError(format: format, offset: consumed, reason: .empty)
        case .inside: throw CompressionError(format: format, offset: consumed, reason: .truncated)
        }
    }
}

// The decoders are reached through this owner alone, which cannot be copied.
extension Decompressor: @unchecked Sendable {}

/// What an end of input would mean to a decoder now.
enum EndState {
    case nothing, inside, complete
}

/// A fault without its place.
struct DecodeFault: Error {
    var reason: CompressionError.Reason
    init(_ reason: CompressionError.Reason) { self.reason = reason }
}
