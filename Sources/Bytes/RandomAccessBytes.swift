/// Bytes that can be read at any offset: a file, or an array in tests and fuzzers.
public protocol RandomAccessBytes {
    /// The size in bytes.
    var byteCount: UInt64 { get }

    /// Reads from `offset` into `buffer` and returns the number of bytes read, which is less than the buffer holds only at the end.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

extension [UInt8]: RandomAccessBytes {
    public var byteCount: UInt64 { UInt64(count) }

    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard let start = Int(exactly: offset), start < count else { return 0 }
        let length = Swift.min(buffer.count, count - start)
        withUnsafeBytes { all in buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: all[start..<(start + length)])) }
        return length
    }
}
