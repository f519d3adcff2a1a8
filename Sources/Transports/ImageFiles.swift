import ComposefsBytes
import ComposefsHashing
package import ComposefsLinuxSystem
import ComposefsOCIModel

/// The files of a layout, wherever they are: in a directory or in an archive.
protocol ImageFiles: Sendable {
    /// For messages.
    var name: ByteString { get }

    /// A regular file by its path, relative and without `.` or `..`; nil where there is none.
    func open(_ path: ByteString) throws -> ImageFile?
}

/// A part of an open file that is a file of its own.
package struct ImageFile: Sendable {
    package let file: OpenFile
    /// Where it begins in `file`, in bytes.
    package let offset: UInt64
    /// In bytes.
    package let size: UInt64

    /// The whole of an open regular file.
    package init(_ file: OpenFile) {
        self.file = file
        offset = 0
        size = file.byteCount
    }

    package init(_ file: OpenFile, offset: UInt64, size: UInt64) {
        self.file = file
        self.offset = offset
        self.size = size
    }

    /// Fills `buffer` from `position` on; fewer bytes only at the end.
    package func read(at position: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        guard position < size else { return 0 }
        let count = Int(min(UInt64(buffer.count), size - position))
        let (start, overflow) = offset.addingReportingOverflow(position)
        guard !overflow else { return 0 }
        return try file.read(at: start, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
    }

    /// All of it, in pieces, in memory that is used again.
    func forEachPiece(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 * 1024, alignment: 4096)
        defer { buffer.deallocate() }
        var position: UInt64 = 0
        while true {
            let count = try read(at: position, into: buffer)
            if count == 0 { return }
            try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            position += UInt64(count)
        }
    }

    package func readAll() throws -> [UInt8] {
        var bytes: [UInt8] = []
        try forEachPiece { bytes.append(contentsOf: $0) }
        return bytes
    }
}

extension ImageFiles {
    /// The whole of a small file.
    func read(_ path: ByteString, limit: Int) throws -> [UInt8]? {
        guard let file = try open(path) else { return nil }
        guard file.size <= UInt64(limit) else {
            throw OCIError.damaged(source: name, "\(path) has \(file.size) bytes; at most \(limit) are read")
        }
        return try file.readAll()
    }

    func requireFile(_ path: ByteString, for descriptor: Descriptor) throws -> ImageFile {
        guard let file = try open(path) else {
            let note = descriptor.isForeign ? ": " + descriptor.foreignNote : ""
            throw OCIError.notFound(source: name, "the blob \(descriptor.digest) is missing" + note)
        }
        guard file.size == descriptor.size else {
            throw OCIError.damaged(
                source: name, "the blob \(descriptor.digest) has \(file.size) bytes, but its descriptor announces \(descriptor.size)")
        }
        return file
    }

    /// A manifest or index among the blobs.
    func manifest(_ path: ByteString, _ descriptor: Descriptor) throws -> [UInt8] {
        guard descriptor.size <= UInt64(ImageLimits.largestManifest) else {
            throw OCIError.damaged(
                source: name,
                "the manifest \(descriptor.digest) has \(descriptor.size) bytes; at most \(ImageLimits.largestManifest) are read")
        }
        return try requireFile(path, for: descriptor).readAll()
    }

    func blob(_ path: ByteString, _ descriptor: Descriptor) throws -> any BlobReader {
        if let data = descriptor.data { return DataBlobReader(data) }
        return FileBlobReader(try requireFile(path, for: descriptor))
    }
}

/// Files beneath a directory. No link leads out of it, the last component is none, and only regular files are opened.
struct DirectoryFiles: ImageFiles {
    let name: ByteString
    private let directory: SharedDirectory
    private let resolve: ResolveFlags

    /// - Parameter asRoot: whether `/` and `..` in links and paths are taken as they are in a container, instead of refused.
    init(_ path: ByteString, asRoot: Bool = false) throws {
        name = path
        resolve = [asRoot ? .inRoot : .beneath, .noMagicLinks]
        directory = SharedDirectory(descriptor: try FileDescriptor.open(path, [.readOnly, .directory]))
    }

    func open(_ path: ByteString) throws -> ImageFile? {
        let file: FileDescriptor
        do throws(SystemError) {
            // Without non-blocking mode a fifo of that name would hold us for ever.
            file = try directory.descriptor.open(at: path, [.readOnly, .noFollow, .nonBlocking], resolve: resolve)
        } catch {
            switch error.errno {
            case .noEntry, .notDirectory: return nil
            case .tooManySymbolicLinks: throw OCIError.damaged(source: name, "\(path) is a symbolic link, not a file")
            case .crossDevice: throw OCIError.damaged(source: name, "\(path) lies outside of the directory")
            case .noDeviceOrAddress: throw OCIError.damaged(source: name, "\(path) is no regular file")
            default: throw error
            }
        }
        guard try file.status().kind == .regular else { throw OCIError.damaged(source: name, "\(path) is no regular file") }
        return ImageFile(try OpenFile(file))
    }
}

/// A directory that several threads open files in.
final class SharedDirectory: Sendable {
    let descriptor: FileDescriptor
    init(descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
}

/// A blob that is a file or a part of one.
package final class FileBlobReader: BlobReader {
    private let file: ImageFile
    private var position: UInt64 = 0

    package init(_ file: ImageFile) {
        self.file = file
        if file.offset == 0 { file.file.descriptor.adviseSequential() }
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let count = try file.read(at: position, into: buffer)
        position &+= UInt64(count)
        return count
    }
}

/// A blob in memory.
package final class DataBlobReader: BlobReader {
    private let data: [UInt8]
    private var position = 0

    package init(_ data: [UInt8]) { self.data = data }

    package func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = data.read(at: UInt64(position), into: buffer)
        position += count
        return count
    }
}
