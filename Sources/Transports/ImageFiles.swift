import ComposefsBytes
import ComposefsHashing
package import ComposefsLinuxSystem
import ComposefsOCIModel

/// The files of a layout, in a directory or in an archive.
protocol ImageFiles: Sendable {
    /// The name in messages.
    var name: ByteString { get }

    /// The absolute path without symbolic links, when it was opened; nil for a pipe.
    var path: ByteString? { get }

    /// Opens a regular file by its relative path, which contains neither `.` nor `..`; nil if it does not exist.
    func open(_ path: ByteString) throws -> ImageFile?
}

/// A file, or a part of an archive that is one file.
package struct ImageFile: Sendable {
    package let file: OpenFile
    /// The offset of the first byte in `file`.
    package let offset: UInt64
    /// The size in bytes.
    package let size: UInt64

    /// An open regular file as a whole.
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

    /// Fills `buffer` from `position` on and returns the number of bytes; fewer only at the end.
    package func read(at position: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        guard position < size else { return 0 }
        let count = Int(min(UInt64(buffer.count), size - position))
        let (start, overflow) = offset.addingReportingOverflow(position)
        guard !overflow else { return 0 }
        return try file.read(at: start, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
    }

    /// Reads the file from beginning to end and calls `body` with consecutive blocks. The memory is valid only during the call.
    func forEachBlock(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
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

    /// Reads the whole file into memory.
    package func readAll() throws -> [UInt8] {
        var bytes: [UInt8] = []
        try forEachBlock { bytes.append(contentsOf: $0) }
        return bytes
    }
}

extension ImageFiles {
    /// Reads a whole file; nil if it does not exist.
    ///
    /// - Parameter limit: the largest size that is read, in bytes.
    func read(_ path: ByteString, limit: Int) throws -> [UInt8]? {
        guard let file = try open(path) else { return nil }
        guard file.size <= UInt64(limit) else {
            throw OCIError.damaged(source: name, .fileTooLarge(path, size: file.size, limit: limit))
        }
        return try file.readAll()
    }

    /// Opens the file of a blob and compares its size with the descriptor.
    func requireFile(_ path: ByteString, for descriptor: Descriptor) throws -> ImageFile {
        guard let file = try open(path) else {
            throw OCIError.notFound(source: name, descriptor.missing)
        }
        guard file.size == descriptor.size else {
            throw OCIError.damaged(source: name, .blobSize(descriptor.digest, found: file.size, announced: descriptor.size))
        }
        return file
    }

    /// Reads a manifest or index from the blobs. The caller verifies the digest.
    func manifest(_ path: ByteString, _ descriptor: Descriptor) throws -> [UInt8] {
        guard descriptor.size <= UInt64(ImageLimits.largestManifest) else {
            throw OCIError.damaged(
                source: name, .manifestTooLarge(descriptor.digest, size: descriptor.size, limit: ImageLimits.largestManifest))
        }
        return try requireFile(path, for: descriptor).readAll()
    }

    /// Opens a blob. The caller verifies the digest.
    func blob(_ path: ByteString, _ descriptor: Descriptor) throws -> any BlobReader {
        if let data = descriptor.data { return DataBlobReader(data) }
        return FileBlobReader(try requireFile(path, for: descriptor))
    }
}

/// Files in a directory. Symbolic links must not lead out of it, the last component must not be one, and only regular files are opened.
struct DirectoryFiles: ImageFiles {
    let name: ByteString
    var path: ByteString? { directory.descriptor.kernelPath }
    private let directory: SharedDirectory
    private let resolve: ResolveFlags

    /// - Parameter asRoot: whether the directory is the root for absolute paths and `..` (RESOLVE_IN_ROOT of openat2(2)), instead of
    ///   refusing them (RESOLVE_BENEATH).
    init(_ path: ByteString, asRoot: Bool = false) throws {
        name = path
        resolve = [asRoot ? .inRoot : .beneath, .noMagicLinks]
        directory = SharedDirectory(descriptor: try FileDescriptor.open(path, [.readOnly, .directory]))
    }

    func open(_ path: ByteString) throws -> ImageFile? {
        let file: FileDescriptor
        do throws(SystemError) {
            // In blocking mode, opening a FIFO of that name would never return.
            file = try directory.descriptor.open(at: path, [.readOnly, .noFollow, .nonBlocking], resolve: resolve)
        } catch {
            switch error.errno {
            case .noEntry, .notDirectory: return nil
            case .tooManySymbolicLinks: throw OCIError.damaged(source: name, .symbolicLink(path))
            case .crossDevice: throw OCIError.damaged(source: name, .outside(path))
            case .noDeviceOrAddress: throw OCIError.damaged(source: name, .notRegularFile(path))
            default: throw error
            }
        }
        guard try file.status().kind == .regular else { throw OCIError.damaged(source: name, .notRegularFile(path)) }
        return ImageFile(try OpenFile(file))
    }
}

/// An open directory that several threads share.
final class SharedDirectory: Sendable {
    let descriptor: FileDescriptor
    init(descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
}

/// Reads a blob that is a file or a part of one.
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

/// Reads a blob in memory.
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
