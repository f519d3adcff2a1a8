import ComposefsBytes
import ComposefsCompression
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTar

/// The files of a tar archive, found through an index. The index is created once, from the headers.
struct TarFiles: ImageFiles {
    let name: ByteString
    let path: ByteString?
    private let file: OpenFile
    private let entries: [ByteString: TarIndex.Entry]

    /// - Parameter scratch: for an archive that is compressed or comes through a pipe.
    /// - Throws: `OCIError`, `SystemError`, `LimitExceeded`, `CancellationError`.
    init(_ path: ByteString, scratch: ArchiveScratch) throws {
        name = path
        let input = try ArchiveInput(path, scratch.cancellation)
        self.path = input.isRegular ? input.descriptor.kernelPath : nil
        guard input.isRegular, try Self.format(of: input.descriptor) == .none else {
            let (file, index) = try ArchiveSpool.write(input, to: scratch)
            (self.file, entries) = (file, index.entries)
            return
        }
        file = try OpenFile(try input.descriptor.duplicate())
        var index = TarIndex(source: path)
        try Self.scan(file, path, &index)
        entries = index.entries
    }

    private static func format(of file: borrowing FileDescriptor) throws -> CompressionFormat {
        try withUnsafeTemporaryAllocation(byteCount: TarIndex.prefixBytes, alignment: 1) { buffer in
            let count = try file.preadFully(into: buffer, at: 0)
            return CompressionFormat.detect(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    /// Reads the headers and skips the contents.
    private static func scan(_ file: OpenFile, _ path: ByteString, _ index: inout TarIndex) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 4096)
        defer { buffer.deallocate() }
        var parser = TarParser()
        var position: UInt64 = 0
        do {
            reading: while true {
                let count = try file.read(at: position, into: buffer)
                if count == 0 { break }
                if position == 0 { index.notePrefix(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
                var at = 0
                while at < count {
                    // One block at a time: the parser can skip content only at its first byte.
                    let step = min(512 - Int((position + UInt64(at)) % 512), count - at)
                    try parser.feed(UnsafeRawBufferPointer(rebasing: buffer[at..<(at + step)]), to: &index)
                    at += step
                    if index.isAtContent {
                        index.isAtContent = false
                        let size = try parser.skipExternal()
                        let (end, overflow) = (position + UInt64(at)).addingReportingOverflow(size)
                        guard !overflow, end <= file.byteCount else {
                            throw OCIError.damaged(source: path, .cutFile)
                        }
                        position = end
                        continue reading
                    }
                }
                position += UInt64(count)
            }
            try parser.finish()
        } catch let error as TarError {
            throw index.explain(error)
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
        throw OCIError.damaged(source: name, .tooManyLinks(path))
    }
}
