/// The part of an image that is being written. Every store is checked against its ends.
struct ImageBytes {
    let bytes: UnsafeMutableRawBufferPointer
    /// The offset in the image of the first byte.
    let start: Int

    @inline(__always)
    func put(_ value: some FixedWidthInteger & BitwiseCopyable, at offset: Int) {
        precondition(offset >= start && offset - start + MemoryLayout.size(ofValue: value) <= bytes.count, "layout and emission disagree")
        bytes.storeBytes(of: value.littleEndian, toByteOffset: offset - start, as: type(of: value))
    }

    @inline(__always)
    func put(_ source: UnsafeRawBufferPointer, at offset: Int) { room(source.count, at: offset).copyMemory(from: source) }

    func put(_ source: [UInt8], at offset: Int) { source.withUnsafeBytes { put($0, at: offset) } }

    /// A buffer in the image that the caller fills.
    func room(_ count: Int, at offset: Int) -> UnsafeMutableRawBufferPointer {
        precondition(offset >= start && offset - start + count <= bytes.count, "layout and emission disagree")
        return UnsafeMutableRawBufferPointer(rebasing: bytes[(offset - start)..<(offset - start + count)])
    }
}

/// A buffer that moves over an image from its beginning to its end. What is not written is zero.
struct ImageWindow {
    private var bytes: UnsafeMutableRawBufferPointer
    /// The offset in the image of the first byte of the buffer.
    private var start = 0
    /// The end of what was opened.
    private var end = 0
    /// The size of the image.
    private let limit: Int

    /// The buffer is larger only for a part that is larger.
    private static let size = 1 << 20

    init(limit: Int) {
        self.limit = limit
        bytes = Self.zeros(min(limit, Self.size))
    }

    func deallocate() { bytes.deallocate() }

    private static func zeros(_ count: Int) -> UnsafeMutableRawBufferPointer {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        return bytes
    }

    var image: ImageBytes { ImageBytes(bytes: UnsafeMutableRawBufferPointer(rebasing: bytes[..<(end - start)]), start: start) }

    /// Makes a part of the image writable, which begins at the end of the previous one or after it.
    mutating func open<Failure: Error>(
        _ part: Range<Int>, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(part.lowerBound >= end && part.upperBound <= limit, "the parts of an image are written in their order")
        while part.upperBound - start > bytes.count, part.lowerBound > start {
            // All that is before the part is complete.
            end = min(part.lowerBound, start + bytes.count)
            try flush(body)
        }
        if part.count > bytes.count {
            bytes.deallocate()
            bytes = Self.zeros(part.count)
        }
        end = part.upperBound
    }

    /// Passes on what was opened.
    mutating func flush<Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
        guard end > start else { return }
        let filled = UnsafeMutableRawBufferPointer(rebasing: bytes[..<(end - start)])
        try body(UnsafeRawBufferPointer(filled))
        filled.initializeMemory(as: UInt8.self, repeating: 0)
        start = end
    }
}
