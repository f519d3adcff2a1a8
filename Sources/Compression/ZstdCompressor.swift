internal import ComposefsCZstd

/// Compresses bytes into one zstd frame in the form that split streams use: streaming, no checksum, no dictionary, no pledged size.
///
/// The result does not depend on how the content is divided into calls, but it depends on the release of libzstd. A frame without content
/// is the nine bytes `28 b5 2f fd 20 00 01 00 00`.
public struct ZstdCompressor: ~Copyable {
    private let context: OpaquePointer
    private let buffer: UnsafeMutableRawBufferPointer

    /// - Parameters:
    ///   - level: From 1 to 22.
    ///   - threads: The number of worker threads that libzstd starts; with 0, the calling thread compresses. All numbers from 1 up give the
    ///     same bytes, but 0 gives others.
    public init(level: Int32 = 3, threads: Int32 = 0) {
        // This fails only when memory is exhausted; no input can cause it.
        guard let context = ZSTD_createCCtx() else { fatalError("libzstd has no memory for an encoder") }
        self.context = context
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        if threads > 0 {
            // A libzstd that was built without threads refuses the parameter and compresses on the calling thread.
            ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, threads)
            ZSTD_CCtx_setParameter(context, ZSTD_c_jobSize, 2 << 20)
        }
        buffer = .allocate(byteCount: ZSTD_CStreamOutSize(), alignment: 16)
    }

    static var release: String { String(cString: ZSTD_versionString()) }

    deinit {
        ZSTD_freeCCtx(context)
        buffer.deallocate()
    }

    /// Compresses `input` and appends the bytes that are ready, possibly none, to `output`.
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
            var target = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
            let left = ZSTD_compressStream2(context, &target, &source, directive)
            // Only memory can run out here: the parameters are valid, and any bytes can be compressed.
            guard ZSTD_isError(left) == 0 else { fatalError("libzstd: " + String(cString: ZSTD_getErrorName(left))) }
            output.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<target.pos]))
            if directive == ZSTD_e_end ? left == 0 : source.pos == source.size { return }
        }
    }
}

// Only this owner reaches the context, and it cannot be copied.
extension ZstdCompressor: @unchecked Sendable {}
