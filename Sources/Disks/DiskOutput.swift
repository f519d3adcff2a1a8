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
    /// - Parameter body: makes the files, see `addFile`.
    static func makeDirectory<Result>(_ path: ByteString, _ body: (borrowing FileDescriptor) throws -> Result) throws -> Result {
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
            let directory = try parent.open(at: temporary, [.readOnly, .directory, .noFollow])
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

    /// Makes a file in a directory of `makeDirectory`, durable.
    static func addFile(
        _ name: ByteString, in directory: borrowing FileDescriptor, _ body: (borrowing FileDescriptor) throws -> Void
    ) throws {
        let file = try directory.open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o644)
        try body(file)
        try file.syncData()
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
