public import ComposefsBytes

/// A part of a layer's archive in composefs-rs's "splitdirfdstream". There is neither header nor footer: the archive is what the chunks
/// contribute, one after another. All numbers are little-endian.
///
/// | type | fields | contributes |
/// | --- | --- | --- |
/// | 0 | u32 length, bytes | the bytes: headers and padding |
/// | 1 | u32 length, bytes | the bytes: a file's content |
/// | 2 | u64 length, u32 directory, u32 length of the path, path | the file at the path below a directory, from its beginning |
public enum DirectoryStreamChunk: Hashable, Sendable {
    /// So many bytes of the archive follow, which may be a file's content. They are not a part of the value: see `DirectoryStreamReader`.
    case bytes(count: Int)
    /// The content of a file: the index of its directory among those that were passed, the path below it, and the size in bytes.
    case file(directory: UInt32, path: ByteString, size: UInt64)

    /// The largest number of bytes in a chunk.
    public static let largestCount = 256 << 20
    /// The largest number of bytes of a path.
    public static let largestPath = 4096

    /// The head of a chunk of metadata. The bytes follow it.
    public static func head(ofBytes count: Int) -> [UInt8] {
        precondition((0...largestCount).contains(count), "a chunk is too long")
        return [0] + littleEndian(UInt32(count))
    }

    /// A whole chunk that names a file.
    public static func file(directory: UInt32, path: ByteString, size: UInt64) -> [UInt8] {
        precondition((1...largestPath).contains(path.count), "a path is too long")
        return [2] + littleEndian(size) + littleEndian(directory) + littleEndian(UInt32(path.count)) + path.bytes
    }

    private static func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
}

/// Reads the chunks of a stream that arrives in pieces.
///
/// The caller takes the bytes of a `.bytes` chunk itself, with `takeBytes`, before it asks for the next chunk.
public struct DirectoryStreamReader: Sendable {
    /// Why a stream is refused, at the offset in bytes at which the chunk begins.
    public struct Fault: Error, Hashable, Sendable, CustomStringConvertible {
        public enum Reason: Hashable, Sendable {
            case unknownType(UInt8)
            case tooLong(UInt32)
            case path(String)
            case truncated
        }

        public var offset: UInt64
        public var reason: Reason

        public var description: String {
            let what =
                switch reason {
                case .unknownType(let type): "there is no chunk of type \(type)"
                case .tooLong(let count): "a chunk of \(count) bytes is longer than \(DirectoryStreamChunk.largestCount)"
                case .path(let fault): "the path of a file \(fault)"
                case .truncated: "it ends inside a chunk"
                }
            return "the layer's stream is not valid at byte \(offset): \(what)"
        }
    }

    private var bytes: [UInt8] = []
    private var at = 0
    /// The offset of `bytes` in the stream.
    private var base: UInt64 = 0
    /// Bytes of the last chunk that were not taken.
    public private(set) var pending = 0

    public init() {}

    private var offset: UInt64 { base + UInt64(at) }

    public mutating func append(_ new: UnsafeRawBufferPointer) {
        if at > 0 {
            bytes.removeFirst(at)
            base += UInt64(at)
            at = 0
        }
        bytes.append(contentsOf: new)
    }

    /// The next chunk; nil if more bytes must be appended first. The bytes of the last chunk must have been taken.
    public mutating func next() throws(Fault) -> DirectoryStreamChunk? {
        precondition(pending == 0, "the bytes of a chunk were left")
        guard at < bytes.count else { return nil }
        switch bytes[at] {
        case 0, 1:
            guard let count = number(UInt32.self, after: 1) else { return nil }
            guard count <= UInt32(DirectoryStreamChunk.largestCount) else { throw Fault(offset: offset, reason: .tooLong(count)) }
            at += 5
            pending = Int(count)
            return .bytes(count: pending)
        case 2:
            guard let size = number(UInt64.self, after: 1), let directory = number(UInt32.self, after: 9),
                let length = number(UInt32.self, after: 13)
            else { return nil }
            guard (1...UInt32(DirectoryStreamChunk.largestPath)).contains(length) else {
                throw Fault(offset: offset, reason: .path("has \(length) bytes"))
            }
            let end = at + 17 + Int(length)
            guard end <= bytes.count else { return nil }
            let path = ByteString(bytes[(at + 17)..<end])
            if let fault = Self.fault(of: path) { throw Fault(offset: offset, reason: .path(fault)) }
            at = end
            return .file(directory: directory, path: path, size: size)
        case let type: throw Fault(offset: offset, reason: .unknownType(type))
        }
    }

    /// Moves bytes of the last chunk, as many as have arrived and have room, to the front of the buffer and returns their number.
    public mutating func takeBytes(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(pending, bytes.count - at, buffer.count)
        bytes.withUnsafeBytes { all in buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: all[at..<(at + count)])) }
        at += count
        pending -= count
        return count
    }

    /// To be called at the end of the stream.
    public func finish() throws(Fault) {
        guard pending == 0, at == bytes.count else { throw Fault(offset: offset, reason: .truncated) }
    }

    private func number<Number: FixedWidthInteger>(_ type: Number.Type, after distance: Int) -> Number? {
        let start = at + distance
        guard start + MemoryLayout<Number>.size <= bytes.count else { return nil }
        return bytes.withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: Number.self)) }
    }

    /// The file must be below its directory. The caller opens it so in any case; here the reason is told.
    private static func fault(of path: ByteString) -> String? {
        if path.bytes.contains(0) { return "contains a NUL" }
        if path.bytes.first == UInt8(ascii: "/") { return "is absolute" }
        let parts = path.bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return parts.contains { $0.elementsEqual("..".utf8) } ? "contains \"..\"" : nil
    }
}
