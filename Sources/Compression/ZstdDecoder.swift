internal import ComposefsCZstd

/// Decodes zstd frames with libzstd's streaming decoder.
final class ZstdDecoder {
    private let context: OpaquePointer
    /// Whether a frame has begun and not ended.
    private var isInside = false
    /// How many bytes of a frame's magic number were seen: 0 between frames, 4 inside one.
    private var magicBytes = 0
    private var mayBeData = true
    private var mayBeSkippable = true
    private var frames: UInt64 = 0

    init() {
        // This fails only when memory is exhausted; no input can cause it.
        guard let context = ZSTD_createDCtx() else { fatalError("libzstd has no memory for a decoder") }
        self.context = context
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 27)
    }

    deinit { ZSTD_freeDCtx(context) }

    var end: EndState { isInside ? .inside : (frames == 0 ? .nothing : .complete) }

    func decode(
        _ input: inout UnsafeRawBufferPointer, _ output: UnsafeMutableRawPointer, _ room: Int, _ filled: inout Int
    ) throws(DecodeFault) {
        while filled < room {
            var offered = input.count
            if magicBytes < 4 {
                guard offered > 0 else { return }
                offered = min(offered, 4 - magicBytes)
                for index in 0..<offered { try checkMagic(input[index]) }
                isInside = true
            }
            var source = ZSTD_inBuffer(src: input.baseAddress, size: offered, pos: 0)
            var target = ZSTD_outBuffer(dst: output + filled, size: room - filled, pos: 0)
            let status = ZSTD_decompressStream(context, &target, &source)
            if ZSTD_isError(status) != 0 { throw DecodeFault(Self.reason(status)) }
            input = UnsafeRawBufferPointer(rebasing: input[source.pos...])
            filled += target.pos
            if status == 0, isInside, magicBytes == 4, source.pos > 0 || target.pos > 0 {
                isInside = false
                magicBytes = 0
                mayBeData = true
                mayBeSkippable = true
                frames &+= 1
            } else if source.pos == 0, target.pos == 0 {
                return
            }
        }
    }

    private func checkMagic(_ byte: UInt8) throws(DecodeFault) {
        mayBeData = mayBeData && ZstdMagic.matches(byte, at: magicBytes, of: .data)
        mayBeSkippable = mayBeSkippable && ZstdMagic.matches(byte, at: magicBytes, of: .skippable)
        guard mayBeData || mayBeSkippable else { throw DecodeFault(frames == 0 ? .notTheFormat : .trailingGarbage) }
        magicBytes += 1
    }

    private static func reason(_ status: Int) -> CompressionError.Reason {
        // The negated status is an error number of zstd_errors.h, which is stable across releases.
        switch 0 &- status {
        case 16: .windowTooLarge
        case 22: .checksum
        case 32: .dictionary
        case 64: .outOfMemory
        default: .corrupt(String(cString: ZSTD_getErrorName(status)))
        }
    }
}

/// Decompresses frames that are in memory as a whole.
///
/// Memory use grows with the decompressed bytes, never with what a header claims.
///
/// - Parameter limit: The largest accepted size of the result, in bytes.
/// - Throws: `CompressionError`; `.tooLong` when the result exceeds `limit`.
public func zstdDecompress(_ frame: UnsafeRawBufferPointer, limit: Int) throws(CompressionError) -> [UInt8] {
    var decoder = Decompressor(.zstd)
    var rest = frame
    var result: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    defer { buffer.deallocate() }
    while true {
        let count = try decoder.decompress(&rest, into: buffer)
        if count == 0 { break }
        guard count <= limit - result.count else {
            throw CompressionError(format: .zstd, offset: decoder.consumed, reason: .tooLong(limit: limit))
        }
        result.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
    try decoder.finish()
    return result
}
