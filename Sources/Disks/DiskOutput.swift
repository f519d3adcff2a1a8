import ComposefsBytes
import ComposefsLinuxSystem

/// A file or directory that gets its name when it is complete and durable.
enum DiskOutput {
    /// Makes a file, or replaces a regular one.
    static func makeFile<Result>(_ path: ByteString, _ body: (borrowing FileDescriptor) throws -> Result) throws -> Result {
        let name = try name(of: path)
        let parent = try FileDescriptor.open(FileDescriptor.split(path).directory, [.readOnly, .directory])
        if let status = try parent.statusIfPresent(at: name), status.kind != .regular { throw DiskError.notRegularFile(path) }
        return try make(in: parent, name, replaces: true, body)
    }

    /// Makes a file whose name must be free.
    static func makeNewFile<Result>(_ path: ByteString, _ body: (borrowing FileDescriptor) throws -> Result) throws -> Result {
        let name = try name(of: path)
        let parent = try FileDescriptor.open(FileDescriptor.split(path).directory, [.readOnly, .directory])
        guard try parent.statusIfPresent(at: name) == nil else { throw DiskError.exists(path) }
        do {
            return try make(in: parent, name, replaces: false, body)
        } catch let error as SystemError where error.errno == .exists {
            throw DiskError.exists(path)
        }
    }

    private static func make<Result>(
        in parent: borrowing FileDescriptor, _ name: ByteString, replaces: Bool, _ body: (borrowing FileDescriptor) throws -> Result
    ) throws -> Result {
        let naming = PendingFile.Naming(prefix: ByteString(([UInt8(ascii: ".")] + name.bytes).prefix(200)) + ".tmp-")
        PendingFile.removeAbandoned(in: parent, naming)
        var pending = try PendingFile(in: parent, naming)
        do {
            let result = try body(pending.file)
            if replaces { try pending.publish(in: parent, as: name) } else { try pending.publishNew(in: parent, as: name) }
            try parent.sync()
            return result
        } catch {
            pending.abandon(in: parent)
            throw error
        }
    }

    /// Makes a directory of files. An empty directory of that name is replaced.
    ///
    /// - Parameter body: makes the files.
    static func makeDirectory<Result>(_ path: ByteString, _ body: (NewDirectory) throws -> Result) throws -> Result {
        let name = try name(of: path)
        let parent = try FileDescriptor.open(FileDescriptor.split(path).directory, [.readOnly, .directory])
        if let status = try parent.statusIfPresent(at: name) {
            guard status.kind == .directory, try parent.open(at: name, [.readOnly, .directory, .noFollow]).entries().isEmpty else {
                throw DiskError.notEmptyDirectory(path)
            }
        }
        let temporary = ByteString(([UInt8(ascii: ".")] + name.bytes).prefix(200)) + ".tmp-" + ByteString(Host.randomName(12))
        try parent.makeDirectory(at: temporary, mode: 0o755)
        do {
            let directory = NewDirectory(try parent.open(at: temporary, [.readOnly, .directory, .noFollow]))
            let result = try body(directory)
            try directory.sync()
            do throws(SystemError) {
                try parent.rename(at: temporary, to: name)
            } catch {
                guard error.errno == .notEmpty || error.errno == .exists || error.errno == .notDirectory else { throw error }
                throw DiskError.notEmptyDirectory(path)
            }
            try parent.sync()
            return result
        } catch {
            remove(temporary, in: parent)
            throw error
        }
    }

    private static func remove(_ name: ByteString, in parent: borrowing FileDescriptor) {
        if let directory = try? parent.open(at: name, [.readOnly, .directory, .noFollow]), let entries = try? directory.entries() {
            for entry in entries { try? directory.unlink(at: entry.name) }
        }
        try? parent.removeDirectory(at: name)
    }

    private static func name(of path: ByteString) throws -> ByteString {
        let name = FileDescriptor.split(path).name
        guard !name.isEmpty, name != ".", name != "..", name != "/" else { throw DiskError.invalidPath(path) }
        return name
    }
}

/// A directory under construction. Its files are synced together at the end, so that the device has written most of them by then.
final class NewDirectory {
    private let directory: FileDescriptor
    private var unsynced: [NewFile] = []

    /// The most files that stay open until the end.
    private static let openLimit = 64

    init(_ directory: consuming FileDescriptor) { self.directory = directory }

    /// Makes an empty file, which is synced with the directory at the latest.
    func makeFile(_ name: ByteString) throws -> NewFile {
        if unsynced.count >= Self.openLimit { try unsynced.removeFirst().file.syncData() }
        let file = NewFile(try directory.open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o644))
        unsynced.append(file)
        return file
    }

    func fileSystemStatus() throws -> FileSystemStatus { try directory.fileSystemStatus() }

    /// Makes the files and their names durable.
    func sync() throws {
        for file in unsynced { try file.file.syncData() }
        unsynced = []
        try directory.sync()
    }
}

/// A file of a directory under construction.
final class NewFile {
    let file: FileDescriptor

    init(_ file: consuming FileDescriptor) { self.file = file }
}

/// Writes metadata in ascending order, with few calls.
struct GatheredWriter: ~Copyable {
    private var bytes: [UInt8] = []
    private var start: UInt64 = 0
    private static let limit = 1 << 20

    init() {}

    /// Adds bytes at an offset in the file. They are written once others follow that are not adjacent.
    mutating func add(_ new: UnsafeRawBufferPointer, at offset: UInt64, to file: borrowing FileDescriptor) throws {
        if offset != start + UInt64(bytes.count) || bytes.count + new.count > Self.limit {
            try flush(to: file)
            start = offset
        }
        bytes.append(contentsOf: new)
    }

    /// Writes what is left.
    mutating func flush(to file: borrowing FileDescriptor) throws {
        guard !bytes.isEmpty else { return }
        let offset = start
        try bytes.withUnsafeBytes { try file.pwriteAll($0, at: offset) }
        file.startWriteback(at: offset, count: UInt64(bytes.count))
        bytes.removeAll(keepingCapacity: true)
    }
}
