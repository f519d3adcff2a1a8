import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI

/// The directory of `--digest-store`: a file for each content of more than 64 bytes, named by its fs-verity digest (`XX/REST`).
struct DigestStore: ~Copyable {
    private let path: ByteString
    private let directory: FileDescriptor
    /// The folders in which nothing is left of processes that were killed.
    private var clean: Set<ByteString>
    private static let naming = PendingFile.Naming(prefix: ".tmp-")

    static func makeDirectory(_ path: ByteString) throws {
        var missing: [ByteString] = []
        var at = path
        while try FileDescriptor.currentDirectory.statusIfPresent(at: at, follow: true) == nil {
            missing.append(at)
            at = FileDescriptor.split(at).directory
        }
        for path in missing.reversed() { _ = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o755) }
    }

    init(_ path: ByteString) throws {
        let opened = try FileDescriptor.open(path, [.readOnly, .directory])
        self.init(path, opened)
    }

    private init(_ path: ByteString, _ directory: consuming FileDescriptor) {
        self.path = path
        self.directory = directory
        clean = []
    }

    /// Copies the files of a tree that are not there yet, and makes them durable.
    ///
    /// - Parameter source: the directory of which the tree was made.
    /// - Throws: if a file has another content than the tree says.
    mutating func add(_ tree: FileTree, from source: ByteString) throws {
        let root = try FileDescriptor.open(source, [.readOnly, .directory])
        var pending: [(inode: FileTree.InodeID, names: [ByteString])] = [(FileTree.root, [])]
        while let next = pending.popLast() {
            // Opened name by name, so that no symbolic link leads elsewhere.
            var folder = try root.open(at: ".", [.readOnly, .directory])
            for name in next.names { folder = try folder.open(at: name, [.readOnly, .directory, .noFollow]) }
            for entry in tree.sortedEntries(of: next.inode) {
                let (name, inode) = (tree.name(of: entry), tree.inode(of: entry))
                if tree.isDirectory(inode) {
                    pending.append((inode, next.names + [name]))
                } else if case .external(let id, let size) = tree.content(of: inode) {
                    try add(id, size, from: folder, name)
                }
            }
        }
        try directory.syncFileSystem()
    }

    private mutating func add(_ id: ObjectID, _ size: UInt64, from folder: borrowing FileDescriptor, _ name: ByteString) throws {
        let object = ByteString(id.objectPath)
        let parts = FileDescriptor.split(object)
        if let status = try directory.statusIfPresent(at: object) {
            guard status.kind == .regular, status.size == size else {
                throw ToolError("\(path)/\(object) is not the file that its name says: remove it")
            }
        } else {
            // Not blocking: a FIFO that took the name must not block the copy.
            let file = try folder.open(at: name, [.readOnly, .noFollow, .nonBlocking])
            guard try file.status().kind == .regular else { throw Self.changed(file) }
            _ = try directory.makeDirectoryIfMissing(at: parts.directory, mode: 0o755)
            let target = try directory.open(at: parts.directory, [.readOnly, .directory, .noFollow])
            if clean.insert(parts.directory).inserted { PendingFile.removeAbandoned(in: target, Self.naming) }
            var copy = try PendingFile(in: target, Self.naming, mode: 0o644)
            do {
                try Self.fill(copy.file, from: file, size)
                guard try Self.digest(of: copy.file, size) == id else { throw Self.changed(file) }
                try copy.file.changeMode(0o644)
                try copy.publishNew(in: target, as: parts.name)
            } catch let error as SystemError where error.errno == .exists {
                // Another process has stored it meanwhile.
                copy.abandon(in: target)
            } catch {
                copy.abandon(in: target)
                throw error
            }
        }
        try enableVerity(object)
    }

    private static func changed(_ file: borrowing FileDescriptor) -> ToolError {
        ToolError("\(file.kernelPath) changed while it was read: try again")
    }

    /// Shares the content if the file system can, and copies it otherwise.
    private static func fill(_ copy: borrowing FileDescriptor, from file: borrowing FileDescriptor, _ size: UInt64) throws {
        if (try? copy.cloneContent(from: file)) != nil { return }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        var parts = FileParts(into: buffer)
        while parts.offset <= size, let part = try parts.next(of: file) { try copy.writeAll(part) }
    }

    private static let bufferSize = 256 << 10

    /// The digest of the copy, which no other process can change any more; nil if its size differs.
    private static func digest(of file: borrowing FileDescriptor, _ size: UInt64) throws -> ObjectID? {
        guard try file.status().size == size else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        var hasher = VerityHasher(.sha256)
        var parts = FileParts(into: buffer)
        while let part = try parts.next(of: file) { hasher.update(part) }
        return hasher.finalize()
    }

    /// Only if the file system has fs-verity. No descriptor may be open for writing any more.
    private func enableVerity(_ object: ByteString) throws {
        let file = try directory.open(at: object, [.readOnly, .noFollow])
        do throws(SystemError) {
            guard try file.measureVerity() == nil else { return }
            try file.enableVerity(algorithm: VerityAlgorithm.sha256.rawValue)
        } catch {
            // Another process may have done it meanwhile. A directory of another user allows nothing of it; the C tool tries, too.
            guard error.isUnsupported || [.exists, .textBusy, .accessDenied, .notPermitted].contains(error.errno) else { throw error }
        }
    }
}
