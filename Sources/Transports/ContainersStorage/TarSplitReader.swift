import ComposefsBytes
import ComposefsCompression
import ComposefsJSON
import ComposefsOCIModel

/// Re-assembles a layer's archive byte for byte: headers and padding from its tar-split file, contents from the unpacked layer.
///
/// A tar-split file (github.com/vbatts/tar-split) is gzipped JSON with one entry per line: type 2 is a segment of the archive in base64,
/// type 1 a file whose content comes next.
final class TarSplitReader: BlobReader {
    private static let lineLimit = 64 << 20

    private let index: ImageFile
    private let content: DirectoryFiles
    private var decompressor: Decompressor
    private let packed: UnsafeMutableRawBufferPointer
    private let unpacked: UnsafeMutableRawBufferPointer
    /// Bytes of the index that have been read but not decompressed.
    private var input: UnsafeRawBufferPointer
    private var position: UInt64 = 0
    /// Bytes of the index that have been decompressed but not parsed.
    private var lines: [UInt8] = []
    private var lineStart = 0
    private var isAtEnd = false
    /// A segment of the archive, of which the caller has the bytes before `segmentStart`.
    private var segment: [UInt8] = []
    private var segmentStart = 0
    private var file: ImageFile?
    private var filePosition: UInt64 = 0

    init(_ index: ImageFile, _ content: DirectoryFiles) throws {
        self.index = index
        self.content = content
        packed = .allocate(byteCount: 64 * 1024, alignment: 4096)
        unpacked = .allocate(byteCount: 256 * 1024, alignment: 4096)
        input = UnsafeRawBufferPointer(rebasing: packed[..<0])
        var magic: [UInt8] = [0, 0, 0, 0]
        let count = try magic.withUnsafeMutableBytes { try index.read(at: 0, into: $0) }
        decompressor = Decompressor(magic[..<count].withUnsafeBytes { CompressionFormat.detect($0) })
    }

    deinit {
        packed.deallocate()
        unpacked.deallocate()
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        guard !buffer.isEmpty else { return 0 }
        // Small segments and small files are combined, so that one read returns many of them.
        var filled = 0
        while filled < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            if segmentStart < segment.count {
                let count = min(rest.count, segment.count - segmentStart)
                segment.withUnsafeBytes {
                    rest.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[segmentStart..<(segmentStart + count)]))
                }
                segmentStart += count
                filled += count
            } else if let open = file {
                let count = try open.read(at: filePosition, into: rest)
                filePosition += UInt64(count)
                filled += count
                if filePosition == open.size { file = nil } else if count == 0 { throw damaged(.shrunk) }
            } else {
                guard let line = try nextLine() else { break }
                try take(line)
            }
        }
        return filled
    }

    private func damaged(_ damage: OCIError.Damage) -> OCIError { .damaged(source: content.name, damage) }

    private func take(_ line: ArraySlice<UInt8>) throws {
        let fields = try DocumentFields(parsing: Array(line), document: "\(content.name): tar-split", limit: Self.lineLimit)
        switch try fields.size("type") {
        case 2:
            guard let bytes = Base64.decode((try fields.string("payload") ?? "").utf8) else {
                throw fields.malformed("payload", .notBase64)
            }
            segment = bytes
            segmentStart = 0
        case 1:
            let size = try fields.has("size") ? fields.size("size") : 0
            guard size > 0 else { return }
            // A name that is not UTF-8 is in base64.
            let name: ByteString
            if let raw = try fields.string("name_raw") {
                guard let bytes = Base64.decode(raw.utf8) else { throw fields.malformed("name_raw", .notBase64) }
                name = ByteString(bytes)
            } else {
                name = ByteString(try fields.requiredString("name"))
            }
            guard let found = try content.open(name) else { throw damaged(.missingFile(name)) }
            guard found.size == size else { throw damaged(.fileSize(name, found: found.size, archived: size)) }
            file = found
            filePosition = 0
        default: throw fields.malformed("type", .notEntryType)
        }
    }

    /// The next line without its newline; nil at the end.
    private func nextLine() throws -> ArraySlice<UInt8>? {
        var searched = lineStart
        while true {
            if let end = lines[searched...].firstIndex(of: 0x0a) {
                let line = lines[lineStart..<end]
                lineStart = end + 1
                return line
            }
            if isAtEnd {
                guard lineStart < lines.count else { return nil }
                let line = lines[lineStart...]
                lineStart = lines.count
                return line
            }
            lines.removeSubrange(..<lineStart)
            lineStart = 0
            searched = lines.count
            guard lines.count <= Self.lineLimit else {
                throw damaged(.tarSplitLine(limit: Self.lineLimit))
            }
            try readMore()
        }
    }

    private func readMore() throws {
        if input.isEmpty {
            let count = try index.read(at: position, into: packed)
            position += UInt64(count)
            input = UnsafeRawBufferPointer(rebasing: packed[..<count])
        }
        let wasAtEnd = input.isEmpty
        do throws(CompressionError) {
            let produced = try decompressor.decompress(&input, into: unpacked)
            lines.append(contentsOf: unpacked[..<produced])
            if produced == 0, wasAtEnd {
                try decompressor.finish()
                isAtEnd = true
            }
        } catch {
            throw damaged(.tarSplitCompression(error))
        }
    }
}
