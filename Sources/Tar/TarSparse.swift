internal import ComposefsBytes

/// The map of a sparse file, which says where the content in the archive belongs in the file: GNU tar's old format and the PAX formats 0.0,
/// 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
public struct TarSparse: Sendable, Hashable {
    /// A run of bytes that the archive contains.
    public struct Segment: Sendable, Hashable {
        /// The start of the run in the file, in bytes.
        public var offset: UInt64
        public var size: UInt64

        public init(offset: UInt64, size: UInt64) {
            self.offset = offset
            self.size = size
        }
    }

    /// The size of the file in bytes, including holes.
    public var realSize: UInt64
    /// The segments in ascending order, without overlaps; nil if the content in the archive begins with them (PAX 1.0).
    public var segments: [Segment]?

    public init(realSize: UInt64, segments: [Segment]?) {
        self.realSize = realSize
        self.segments = segments
    }

    /// The largest number of segments of one file: about what the extension headers of one entry can hold.
    static let segmentLimit = 1 << 16

    /// - Parameter stored: The number of content bytes in the archive.
    static func check(_ segments: [Segment], realSize: UInt64, stored: UInt64) throws(TarFault) {
        var end: UInt64 = 0
        var sum: UInt64 = 0
        for segment in segments {
            guard segment.offset >= end else { throw TarFault(.badSparse("its segments overlap or are out of order")) }
            let (next, overflow) = segment.offset.addingReportingOverflow(segment.size)
            guard !overflow, next <= realSize else { throw TarFault(.badSparse("its segments exceed its size of \(realSize) bytes")) }
            end = next
            // This cannot overflow: the sum of runs that do not overlap is at most the end of the last one.
            sum += segment.size
        }
        guard sum == stored else { throw TarFault(.badSparse("its map has \(sum) bytes, but the archive contains \(stored)")) }
    }
}

/// Restores the holes of a sparse file, from content that is passed in parts of any size.
public struct SparseExpansion {
    public enum Part {
        /// A number of zero bytes.
        case hole(UInt64)
        /// Bytes that are valid during the call.
        case data(UnsafeRawBufferPointer)
    }

    private let realSize: UInt64
    private let stored: UInt64
    private let offset: UInt64
    private let path: ByteString
    /// Nil while the map is being parsed.
    private var segments: [TarSparse.Segment]?
    private var next = 0
    /// The number of bytes of the current segment that were produced.
    private var done: UInt64 = 0
    /// The number of bytes of the file that were produced.
    private var position: UInt64 = 0
    /// The number of bytes of the archive's content that were consumed.
    private var taken: UInt64 = 0
    private var map = SparseMapReader()

    /// Returns nil if the entry is not a sparse file.
    ///
    /// - Throws: `TarError` if the map is known and contradicts the sizes.
    public init?(_ entry: TarEntry) throws(TarError) {
        guard let sparse = entry.sparse else { return nil }
        realSize = sparse.realSize
        stored = entry.size
        offset = entry.headerOffset
        path = entry.path
        if let known = sparse.segments {
            do throws(TarFault) {
                try TarSparse.check(known, realSize: realSize, stored: stored)
            } catch {
                throw TarError(offset: offset, path: path, reason: error.reason)
            }
        }
        segments = sparse.segments
    }

    /// Consumes the next bytes of the archive's content and passes the resulting parts of the file to `body`.
    public mutating func feed(_ bytes: UnsafeRawBufferPointer, _ body: (Part) throws -> Void) throws {
        var bytes = bytes
        if segments == nil {
            let used: Int
            do throws(TarFault) {
                used = try map.feed(bytes)
                taken += UInt64(used)
                if map.isComplete {
                    try TarSparse.check(map.segments, realSize: realSize, stored: stored - min(stored, taken))
                    segments = map.segments
                }
            } catch {
                throw TarError(offset: offset, path: path, reason: error.reason)
            }
            bytes = UnsafeRawBufferPointer(rebasing: bytes[used...])
        }
        guard let segments else { return }
        while !bytes.isEmpty {
            guard next < segments.count else { throw fault("it has more data than its map describes") }
            let segment = segments[next]
            if position < segment.offset {
                try body(.hole(segment.offset - position))
                position = segment.offset
            }
            let count = Int(min(UInt64(bytes.count), segment.size - done))
            if count > 0 {
                try body(.data(UnsafeRawBufferPointer(rebasing: bytes[..<count])))
                position += UInt64(count)
                done += UInt64(count)
                bytes = UnsafeRawBufferPointer(rebasing: bytes[count...])
            }
            if done == segment.size {
                next += 1
                done = 0
            }
        }
    }

    /// Ends the content. Passes the last hole to `body` and checks that the content was complete.
    public mutating func finish(_ body: (Part) throws -> Void) throws {
        guard let segments else { throw fault("its content ends inside its map") }
        while next < segments.count, segments[next].size == 0 { next += 1 }
        guard next == segments.count else { throw fault("it has less data than its map describes") }
        if position < realSize { try body(.hole(realSize - position)) }
        position = realSize
    }

    private func fault(_ what: String) -> TarError { TarError(offset: offset, path: path, reason: .badSparse(what)) }
}

/// Parses the map at the beginning of a PAX 1.0 sparse file's content: decimal numbers, one per line, beginning with the number of pairs.
/// Zeros fill the map to whole blocks.
private struct SparseMapReader {
    private(set) var segments: [TarSparse.Segment] = []
    private(set) var isComplete = false
    private var count: UInt64?
    private var offset: UInt64?
    private var number: UInt64 = 0
    private var digits = 0
    /// The number of consumed bytes of the current block.
    private var inBlock = 0
    private var isRead = false

    /// Returns the number of bytes that belong to the map.
    mutating func feed(_ bytes: UnsafeRawBufferPointer) throws(TarFault) -> Int {
        var at = 0
        while at < bytes.count, !isComplete {
            if !isRead { try take(bytes[at]) }
            at += 1
            inBlock += 1
            if inBlock == TarHeader.size {
                inBlock = 0
                isComplete = isRead
            }
        }
        return at
    }

    private mutating func take(_ byte: UInt8) throws(TarFault) {
        if byte == 0x0a {
            guard digits > 0 else { throw TarFault(.badSparse("its map has an empty line")) }
            try take(number)
            number = 0
            digits = 0
            return
        }
        let digit = byte &- 0x30
        guard digit < 10 else { throw TarFault(.badSparse("its map contains a byte that is not a digit")) }
        digits += 1
        // Any number of leading zeros is allowed. The remaining digits must fit a size.
        guard number < UInt64(Int64.max) / 10, digits < 64 else { throw TarFault(.badSparse("a number in its map is too large")) }
        number = number * 10 + UInt64(digit)
    }

    private mutating func take(_ value: UInt64) throws(TarFault) {
        guard let count else {
            guard value <= UInt64(TarSparse.segmentLimit) else {
                throw TarFault(.badSparse("its map has more than \(TarSparse.segmentLimit) segments"))
            }
            self.count = value
            isRead = value == 0
            return
        }
        guard let start = offset else {
            offset = value
            return
        }
        segments.append(TarSparse.Segment(offset: start, size: value))
        offset = nil
        isRead = UInt64(segments.count) == count
    }
}
