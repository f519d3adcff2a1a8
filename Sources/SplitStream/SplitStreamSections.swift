internal import ComposefsBytes
internal import ComposefsCompression
internal import ComposefsHashing

/// The checked header and info of a split stream.
struct SplitStreamSections {
    var streamReferences: Range<UInt64>
    var objectReferences: Range<UInt64>
    var body: Range<UInt64>
    var packedNames: Range<UInt64>
    var contentType: UInt64
    var totalSize: UInt64

    init(_ source: some RandomAccessBytes, _ algorithm: VerityAlgorithm) throws(SplitStreamError) {
        let size = source.byteCount
        guard size >= UInt64(SplitStreamLayout.headerSize) else { throw SplitStreamError(.notASplitStream) }
        let header = try source.bytes(0..<UInt64(SplitStreamLayout.headerSize))
        let infoRange = try Self.infoRange(header, size, algorithm)
        guard infoRange.upperBound - infoRange.lowerBound >= UInt64(SplitStreamLayout.infoSize) else {
            throw SplitStreamError(.badRange("info"))
        }
        // A later version of the format may extend the info. Additional fields are ignored.
        let info = try source.bytes(infoRange.lowerBound..<(infoRange.lowerBound + UInt64(SplitStreamLayout.infoSize)))
        var reader = ByteReader(info.span.bytes)
        streamReferences = try Self.range(&reader, size, "stream reference")
        objectReferences = try Self.range(&reader, size, "object reference")
        body = try Self.range(&reader, size, "body")
        packedNames = try Self.range(&reader, size, "name")
        contentType = try Self.u64(&reader)
        totalSize = try Self.u64(&reader)

        let sections = [
            (infoRange, "info"), (streamReferences, "stream reference"), (objectReferences, "object reference"), (body, "body"),
            (packedNames, "name"),
        ]
        var taken = UInt64(SplitStreamLayout.headerSize)
        for (range, name) in sections.filter({ !$0.0.isEmpty }).sorted(by: { $0.0.lowerBound < $1.0.lowerBound }) {
            guard range.lowerBound >= taken else { throw SplitStreamError(.badRange(name)) }
            taken = range.upperBound
        }
    }

    private static func infoRange(_ header: [UInt8], _ size: UInt64, _ algorithm: VerityAlgorithm) throws(SplitStreamError) -> Range<UInt64>
    {
        func hasMagic(at offset: Int) -> Bool {
            SplitStreamLayout.magic.withUTF8Buffer { header[offset..<(offset + $0.count)].elementsEqual($0) }
        }
        let fields: Int
        let rangeAt: Int
        if hasMagic(at: 0) {
            (fields, rangeAt) = (11, 16)
        } else if hasMagic(at: 18) {
            (fields, rangeAt) = (29, 0)
        } else {
            throw SplitStreamError(.notASplitStream)
        }
        guard header[fields] == SplitStreamLayout.version else { throw SplitStreamError(.version(header[fields])) }
        // In the current layout, the flags are between the version and the algorithm.
        let rest = rangeAt == 16 ? fields + 3 : fields + 1
        guard header[rest] == algorithm.rawValue else { throw SplitStreamError(.algorithm(header[rest])) }
        guard header[rest + 1] == SplitStreamLayout.logBlockSize else { throw SplitStreamError(.blockSize(header[rest + 1])) }
        var reader = ByteReader(header.span.bytes)
        do { try reader.skip(rangeAt) } catch { throw SplitStreamError(.truncated) }
        return try range(&reader, size, "info")
    }

    private static func u64(_ reader: inout ByteReader) throws(SplitStreamError) -> UInt64 {
        do { return try reader.u64() } catch { throw SplitStreamError(.truncated) }
    }

    private static func range(_ reader: inout ByteReader, _ size: UInt64, _ name: String) throws(SplitStreamError) -> Range<UInt64> {
        let start = try u64(&reader)
        let end = try u64(&reader)
        guard start <= end, end <= size else { throw SplitStreamError(.badRange(name)) }
        return start..<end
    }

    /// Reads a table of concatenated digests.
    func digests(
        _ range: Range<UInt64>, _ name: String, _ source: some RandomAccessBytes, _ algorithm: VerityAlgorithm, in memory: any LargeMemory
    ) throws(SplitStreamError) -> ObjectIDList {
        let size = UInt64(algorithm.digestSize)
        let length = range.upperBound - range.lowerBound
        guard length % size == 0, length / size <= SplitStreamLayout.mostDigests else { throw SplitStreamError(.badTable(name)) }
        var digests = ObjectIDList(algorithm, in: memory)
        var at = range.lowerBound
        while at < range.upperBound {
            let part = at..<min(at + 1024 * size, range.upperBound)
            digests.append(concatenated: try source.bytes(part))
            at = part.upperBound
        }
        return digests
    }

    /// Reads the names: concatenated records `<decimal index>:<name>NUL`.
    func names(_ source: some RandomAccessBytes, _ digests: ObjectIDList) throws(SplitStreamError) -> [NamedReference] {
        // Compressed data cannot be much longer than the decompressed data.
        guard packedNames.upperBound - packedNames.lowerBound <= UInt64(SplitStreamLayout.longestNames) else {
            throw SplitStreamError(.badNames("they are too long"))
        }
        let packed = try source.bytes(packedNames)
        let bytes: [UInt8]
        do {
            bytes = try packed.withUnsafeBytes { try zstdDecompress($0, limit: SplitStreamLayout.longestNames) }
        } catch {
            throw SplitStreamError(.badNames("\(error)"))
        }
        var names: [NamedReference] = []
        var positions: [ByteString: Int] = [:]
        var at = 0
        while at < bytes.count {
            guard let end = bytes[at...].firstIndex(of: 0) else { throw SplitStreamError(.badNames("the last record is not terminated")) }
            let item = bytes[at..<end]
            at = end + 1
            guard let colon = item.firstIndex(of: UInt8(ascii: ":")) else { throw SplitStreamError(.badNames("a record has no colon")) }
            var index = 0
            guard colon > item.startIndex, colon - item.startIndex <= 9 else {
                throw SplitStreamError(.badNames("a record has no valid index"))
            }
            for character in item[..<colon] {
                guard character &- 0x30 < 10 else { throw SplitStreamError(.badNames("an index is not a number")) }
                index = index * 10 + Int(character &- 0x30)
            }
            guard index < digests.count else {
                throw SplitStreamError(.badNames("index \(index) is out of range (\(digests.count) references)"))
            }
            let text = item[(colon + 1)...]
            guard let name = String(validating: text, as: UTF8.self) else { throw SplitStreamError(.badNames("a name is not UTF-8")) }
            if let position = positions[ByteString(text)] {
                names[position].id = digests[index]
            } else {
                guard names.count < SplitStreamLayout.mostNames else { throw SplitStreamError(.badNames("there are too many")) }
                positions[ByteString(text)] = names.count
                names.append(NamedReference(name: name, id: digests[index]))
            }
        }
        return names
    }
}
