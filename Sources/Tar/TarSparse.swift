internal import ComposefsBytes

/// How the content that an archive holds of a sparse file lies in the file: in GNU tar's old format and in PAX formats 0.0, 0.1 and 1.0
/// (GNU tar manual, "Storing Sparse Files").
public struct TarSparse: Sendable, Hashable {
    /// A run of bytes that the archive holds.
    public struct Segment: Sendable, Hashable {
        /// Where it begins in the file.
        public var offset: UInt64
        public var size: UInt64

        public init(offset: UInt64, size: UInt64) {
            self.offset = offset
            self.size = size
        }
    }

    /// Bytes of the file, holes included.
    public var realSize: UInt64
    /// In ascending order, none reaching into the next; nil where the archive's content begins with them (PAX 1.0).
    public var segments: [Segment]?

    public init(realSize: UInt64, segments: [Segment]?) {
        self.realSize = realSize
        self.segments = segments
    }

    /// Segments of one file at most: what the extension headers of one entry can hold, about.
    static let segmentLimit = 1 << 16

    /// - Parameter stored: bytes that the archive holds.
    static func check(_ segments: [Segment], realSize: UInt64, stored: UInt64) throws(TarFault) {
        var end: UInt64 = 0
        var sum: UInt64 = 0
        for segment in segments {
            guard segment.offset >= end else { throw TarFault(.badSparse("its data overlap or are out of order")) }
            let (next, overflow) = segment.offset.addingReportingOverflow(segment.size)
            guard !overflow, next <= realSize else { throw TarFault(.badSparse("its data reach beyond its size of \(realSize) bytes")) }
            end = next
            // Cannot overflow: no sum of runs that do not overlap is larger than the end of the last.
            sum += segment.size
        }
        guard sum == stored else { throw TarFault(.badSparse("its map tells of \(sum) bytes, the archive holds \(stored)")) }
    }
}

/// Gives a sparse file its holes back, from the content that the archive holds in pieces of any size.
public struct SparseExpansion {
    public enum Part {
        /// So many zeros.
        case hole(UInt64)
        /// Valid during the call.
        case data(UnsafeRawBufferPointer)
    }

    private let realSize: UInt64
    private let stored: UInt64
    private let offset: UInt64
    private let path: ByteString
    /// Nil while the map is being read.
    private var segments: [TarSparse.Segment]?
    private var next = 0
    /// Bytes of the current segment that were given out.
    private var done: UInt64 = 0
    /// Bytes of the file that were given out.
    private var position: UInt64 = 0
    /// Bytes of the archive's content that were taken.
    private var taken: UInt64 = 0
    private var map = SparseMapReader()

    /// - Parameter entry: whose `sparse` is not nil.
    /// - Throws: where the map, if it is known, contradicts the sizes.
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

    /// Takes the next bytes of the archive's content.
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
            guard next < segments.count else { throw fault("there are more data than its map tells of") }
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

    /// Says that all of the archive's content was fed.
    public mutating func finish(_ body: (Part) throws -> Void) throws {
        guard let segments else { throw fault("its content ends inside its map") }
        while next < segments.count, segments[next].size == 0 { next += 1 }
        guard next == segments.count else { throw fault("there are fewer data than its map tells of") }
        if position < realSize { try body(.hole(realSize - position)) }
        position = realSize
    }

    private func fault(_ what: String) -> TarError { TarError(offset: offset, path: path, reason: .badSparse(what)) }
}

/// The map at the beginning of a PAX 1.0 sparse file's content: decimal numbers, one a line, their count of pairs first, filled up with
/// zeros to whole blocks.
private struct SparseMapReader {
    private(set) var segments: [TarSparse.Segment] = []
    private(set) var isComplete = false
    private var count: UInt64?
    private var offset: UInt64?
    private var number: UInt64 = 0
    private var digits = 0
    /// Bytes of the current block.
    private var inBlock = 0
    private var isRead = false

    /// Returns how many bytes belong to the map.
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
        guard digit < 10 else { throw TarFault(.badSparse("its map holds something that is no number")) }
        digits += 1
        // Any number of zeros may come first; what remains fits nineteen digits, or is no size.
        guard number < UInt64(Int64.max) / 10, digits < 64 else { throw TarFault(.badSparse("a number in its map is too large")) }
        number = number * 10 + UInt64(digit)
    }

    private mutating func take(_ value: UInt64) throws(TarFault) {
        guard let count else {
            guard value <= UInt64(TarSparse.segmentLimit) else {
                throw TarFault(.badSparse("its map tells of more than \(TarSparse.segmentLimit) pieces"))
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
