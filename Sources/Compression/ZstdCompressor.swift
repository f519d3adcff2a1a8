internal import ComposefsCZstd

/// Packs bytes into one zstd frame as split streams have it: streaming, no checksum, no dictionary, the size not pledged.
///
/// How the bytes are split into calls does not change the result; the release of libzstd does. A frame to which nothing was written is the
/// nine bytes `28 b5 2f fd 20 00 01 00 00`.
public struct ZstdCompressor: ~Copyable {
    private let context: OpaquePointer
    private let piece: UnsafeMutableRawBufferPointer

    /// - Parameters:
    ///   - level: 1 to 22.
    ///   - threads: how many threads of its own libzstd packs with; with none the caller's does the work. The result of one thread is that
    ///     of any number, but not that of none.
    public init(level: Int32 = 3, threads: Int32 = 0) {
        // Only fails when memory is exhausted: no input reaches this.
        guard let context = ZSTD_createCCtx() else { fatalError("libzstd has no memory for an encoder") }
        self.context = context
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        if threads > 0 {
            // A library that was built without threads refuses, and packs on the caller's.
            ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, threads)
            ZSTD_CCtx_setParameter(context, ZSTD_c_jobSize, 2 << 20)
        }
        piece = .allocate(byteCount: ZSTD_CStreamOutSize(), alignment: 16)
    }

    static var release: String { String(cString: ZSTD_versionString()) }

    deinit {
        ZSTD_freeCCtx(context)
        piece.deallocate()
    }

    /// Packs `input` and appends to `output` what is ready, which may be nothing.
    public mutating func compress(_ input: UnsafeRawBufferPointer, into output: inout [UInt8]) {
        guard !input.isEmpty else { return }
        run(input, ZSTD_e_continue, into: &output)
    }

    /// Ends the frame and appends the rest of it to `output`. The next call to `compress` begins a new frame.
    public mutating func finish(into output: inout [UInt8]) {
        run(UnsafeRawBufferPointer(start: nil, count: 0), ZSTD_e_end, into: &output)
    }

    private mutating func run(_ input: UnsafeRawBufferPointer, _ directive: ZSTD_EndDirective, into output: inout [UInt8]) {
        var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
        while true {
            var target = ZSTD_outBuffer(dst: piece.baseAddress, size: piece.count, pos: 0)
            let left = ZSTD_compressStream2(context, &target, &source, directive)
            // Only memory can fail here: the parameters are ours, and any bytes can be packed.
            guard ZSTD_isError(left) == 0 else { fatalError("libzstd: " + String(cString: ZSTD_getErrorName(left))) }
            output.append(contentsOf: UnsafeRawBufferPointer(rebasing: piece[..<target.pos]))
            if directive == ZSTD_e_end ? left == 0 : source.pos == source.size { return }
        }
    }
}

// The context is reached through this owner alone, which cannot be copied.
extension ZstdCompressor: @unchecked Sendable {}
