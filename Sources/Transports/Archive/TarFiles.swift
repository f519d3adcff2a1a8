import ComposefsBytes
import ComposefsCompression
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTar

/// The files of an archive, found by an index that is made once and reads headers only.
struct TarFiles: ImageFiles {
    let name: ByteString
    private let file: OpenFile
    private let entries: [ByteString: Entry]

    private enum Entry: Sendable {
        case file(offset: UInt64, size: UInt64)
        /// A hard or symbolic link, to a path from the archive's root.
        case link(ByteString)
    }

    /// What an archive may cost: names in memory, and bytes on disk where it is compressed.
    private static let entryLimit = 1 << 20
    private static let expandedLimit: UInt64 = 256 << 30

    /// - Parameter scratch: a directory for the temporary file that a compressed archive is expanded to. It has no name there.
    init(_ path: ByteString, scratch: ByteString) throws {
        name = path
        let descriptor = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
        guard try descriptor.status().kind == .regular else { throw OCIError.damaged(source: path, "is no regular file") }
        let archive = try OpenFile(descriptor)
        file = try Self.expanded(archive, path, scratch: scratch)
        var handler = EntryCollector(source: path)
        try Self.scan(file, path, &handler)
        entries = handler.entries
    }

    private static func expanded(_ archive: OpenFile, _ path: ByteString, scratch: ByteString) throws -> OpenFile {
        var magic: [UInt8] = [0, 0, 0, 0]
        let count = try magic.withUnsafeMutableBytes { try archive.read(at: 0, into: $0) }
        let format = magic[..<count].withUnsafeBytes { CompressionFormat.detect($0) }
        if format == .none { return archive }
        let temporary = try FileDescriptor.open(scratch, [.readOnly, .directory]).openTemporary(mode: 0o600)
        var decompressor = Decompressor(format)
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 512 * 1024, alignment: 4096)
        defer { output.deallocate() }
        do {
            try ImageFile(archive).forEachPiece { piece in
                var input = piece
                while true {
                    let produced = try decompressor.decompress(&input, into: output)
                    if produced == 0 { break }
                    try temporary.writeAll(UnsafeRawBufferPointer(rebasing: output[..<produced]))
                    guard decompressor.produced <= expandedLimit else {
                        throw OCIError.unsupported(document: path.description, "more than \(expandedLimit) bytes come out of the archive")
                    }
                }
            }
            try decompressor.finish()
        } catch let error as CompressionError {
            throw OCIError.damaged(source: path, error.description)
        }
        return try OpenFile(temporary)
    }

    /// Reads headers and steps over contents.
    private static func scan(_ file: OpenFile, _ path: ByteString, _ handler: inout EntryCollector) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 4096)
        defer { buffer.deallocate() }
        var parser = TarParser()
        var position: UInt64 = 0
        do {
            reading: while true {
                let count = try file.read(at: position, into: buffer)
                if count == 0 { break }
                var at = 0
                while at < count {
                    // One block at a time: the parser must stand at the first byte of a content to step over it.
                    let step = min(512 - Int((position + UInt64(at)) % 512), count - at)
                    try parser.feed(UnsafeRawBufferPointer(rebasing: buffer[at..<(at + step)]), to: &handler)
                    at += step
                    if handler.isAtContent {
                        handler.isAtContent = false
                        let size = try parser.skipExternal()
                        let (end, overflow) = (position + UInt64(at)).addingReportingOverflow(size)
                        guard !overflow, end <= file.byteCount else {
                            throw OCIError.damaged(source: path, "the archive ends inside a file's content")
                        }
                        position = end
                        continue reading
                    }
                }
                position += UInt64(count)
            }
            try parser.finish()
        } catch let error as TarError {
            throw OCIError.damaged(source: path, error.description)
        }
    }

    func open(_ path: ByteString) throws -> ImageFile? {
        var path = path
        for _ in 0..<16 {
            switch entries[path] {
            case .file(let offset, let size)?: return ImageFile(file, offset: offset, size: size)
            case .link(let target)?: path = target
            case nil: return nil
            }
        }
        throw OCIError.damaged(source: name, "too many links lead to \(path)")
    }

    func contains(_ path: ByteString) -> Bool { entries[path] != nil }

    /// Notes where each file's content is. A later entry of the same name counts.
    private struct EntryCollector: TarHandler {
        let source: ByteString
        var entries: [ByteString: Entry] = [:]
        var isAtContent = false

        mutating func inline(_ bytes: UnsafeRawBufferPointer) {}
        mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {}

        mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
            if case .external = content { isAtContent = true }
            guard let path = normalizedPath(entry.path, relativeTo: []) else { return }
            guard entries.count < TarFiles.entryLimit else {
                throw OCIError.unsupported(document: source.description, "more than \(TarFiles.entryLimit) files in the archive")
            }
            switch entry.kind {
            case .regular:
                let (offset, overflow) = entry.headerOffset.addingReportingOverflow(512)
                entries[path] = overflow ? nil : .file(offset: offset, size: entry.size)
            case .hardLink: entries[path] = normalizedPath(entry.linkTarget, relativeTo: []).map { .link($0) }
            case .symbolicLink:
                let parent = path.bytes.split(separator: UInt8(ascii: "/")).dropLast().map(Array.init)
                entries[path] = normalizedPath(entry.linkTarget, relativeTo: parent).map { .link($0) }
            default: entries[path] = nil
            }
        }
    }
}

/// A path from the archive's root without `.`, `..` and doubled slashes. Nil where it leads out of the archive or names its root.
func normalizedPath(_ path: ByteString, relativeTo parent: [[UInt8]]) -> ByteString? {
    var parts = path.bytes.first == UInt8(ascii: "/") ? [] : parent
    for part in path.bytes.split(separator: UInt8(ascii: "/")) {
        if part.elementsEqual(".".utf8) { continue }
        if part.elementsEqual("..".utf8) {
            guard parts.popLast() != nil else { return nil }
        } else {
            parts.append(Array(part))
        }
    }
    return parts.isEmpty ? nil : ByteString(Array(parts.joined(separator: [UInt8(ascii: "/")])))
}
