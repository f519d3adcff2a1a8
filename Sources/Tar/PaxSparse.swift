internal import ComposefsBytes

/// The `GNU.sparse.` records of a PAX header.
struct PaxSparse {
    var major: UInt64?
    var minor: UInt64?
    var name: ByteString?
    /// `size` of formats 0.0 and 0.1, `realsize` of 1.0.
    var realSize: UInt64?
    private var segments: [TarSparse.Segment] = []
    private var pendingOffset: UInt64?
    private var blockCount: UInt64?

    /// - Parameter key: The key after `GNU.sparse.`.
    mutating func take(_ key: ByteString, _ value: ArraySlice<UInt8>) throws(TarFault) {
        switch key {
        case "major": major = try number(key, value)
        case "minor": minor = try number(key, value)
        case "name":
            guard !value.contains(0) else { throw TarFault(.badValue(key: "GNU.sparse.name", "it contains a NUL byte")) }
            name = value.isEmpty ? nil : ByteString(value)
        case "size", "realsize": realSize = try number(key, value)
        case "numblocks": blockCount = try number(key, value)
        case "offset":
            guard pendingOffset == nil else { throw TarFault(.badSparse("its map has two offsets in a row")) }
            pendingOffset = try number(key, value)
        case "numbytes":
            guard let offset = pendingOffset else { throw TarFault(.badSparse("its map has a size without an offset")) }
            pendingOffset = nil
            try append(offset, try number(key, value))
        case "map":
            segments = []
            var offset: UInt64?
            for part in value.isEmpty ? [] : value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
                let value = try number(key, part)
                if let start = offset {
                    try append(start, value)
                    offset = nil
                } else {
                    offset = value
                }
            }
            guard offset == nil else { throw TarFault(.badSparse("its map has an offset without a size")) }
        default: break
        }
    }

    private mutating func append(_ offset: UInt64, _ size: UInt64) throws(TarFault) {
        guard segments.count < TarSparse.segmentLimit else {
            throw TarFault(.badSparse("its map has more than \(TarSparse.segmentLimit) segments"))
        }
        segments.append(TarSparse.Segment(offset: offset, size: size))
    }

    private func number(_ key: ByteString, _ value: ArraySlice<UInt8>) throws(TarFault) -> UInt64 {
        guard let number = try PaxRecords.number("GNU.sparse." + key, value, max: UInt64(Int64.max)) else {
            throw TarFault(.badValue(key: "GNU.sparse." + key, "it is empty"))
        }
        return number
    }

    /// - Throws: `TarFault` if the records describe no known format, or describe it incompletely.
    func sparse() throws(TarFault) -> TarSparse {
        switch (major ?? 0, minor ?? 0) {
        case (0, 0), (0, 1):
            guard let realSize else { throw TarFault(.badSparse("no record has its size")) }
            guard pendingOffset == nil else { throw TarFault(.badSparse("its map has an offset without a size")) }
            if let blockCount, blockCount != UInt64(segments.count) {
                throw TarFault(.badSparse("its map has \(segments.count) segments, but GNU.sparse.numblocks is \(blockCount)"))
            }
            return TarSparse(realSize: realSize, segments: segments)
        case (1, 0):
            guard let realSize else { throw TarFault(.badSparse("no record has its size")) }
            return TarSparse(realSize: realSize, segments: nil)
        case (let major, let minor): throw TarFault(.badSparse("its format \(major).\(minor) is unknown"))
        }
    }
}
