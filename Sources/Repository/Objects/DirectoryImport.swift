public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

/// Reads a directory on disk as a tree. Contents are hashed but not stored: for image IDs and dumpfiles without a repository.
///
/// The tree holds contents of up to 64 bytes and names longer ones by their digest. Hard links are found by device and inode, times keep
/// their nanoseconds, and all extended attributes that the caller may read are kept. Symbolic links are not followed, except in `path`.
///
/// The walk stays on the file system of `path`: a directory on which another file system is mounted is kept, but empty.
///
/// - Parameters:
///   - threads: how many threads read at once; nil for one for each processor.
///   - foundMountPoint: called with the path, below the directory, of each directory whose content is on another file system.
public func hashDirectory(
    _ path: ByteString, _ algorithm: VerityAlgorithm, threads: Int? = nil, foundMountPoint: (ByteString) -> Void = { _ in }
) throws(RepositoryError) -> FileTree {
    try DirectoryImport.run(path, threads, foundMountPoint) { (file, status, hasher) throws(RepositoryError) in
        try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            try forEachChunk(of: file, status, into: buffer) { hasher.update($0) }
        }
        return hasher.finalize()
    } makeHasher: {
        VerityHasher(algorithm)
    }
}

extension Repository {
    /// As `readDirectory`, and stores the contents longer than 64 bytes as objects: shared with the source (reflink) if the file system
    /// can, copied otherwise. They are durable after the next `publish` or `sync`, and kept once an image that needs them is published.
    public func importDirectory(
        _ path: ByteString, threads: Int? = nil, foundMountPoint: (ByteString) -> Void = { _ in }
    ) throws(RepositoryError) -> FileTree {
        try beginPull()
        return try DirectoryImport.run(path, threads, foundMountPoint) { (file, status, hasher) throws(RepositoryError) in
            try self.importFile(file, status, &hasher)
        } makeHasher: { [algorithm] in
            VerityHasher(algorithm)
        }
    }

    /// Files up to this size are read whole: an object that exists already is then not written again.
    private static let wholeFileLimit: UInt64 = 1 << 20
    /// Smaller files are not worth the extents that they would share.
    private static let cloneMinimum: UInt64 = 16 << 10

    private func importFile(
        _ file: borrowing FileDescriptor, _ status: FileStatus, _ hasher: inout VerityHasher
    ) throws(RepositoryError) -> ObjectID {
        if status.size >= Self.cloneMinimum, let id = try cloneFile(file, status, &hasher) { return id }
        if status.size <= Self.wholeFileLimit, let size = Int(exactly: status.size) {
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size + 1, alignment: 16)
            defer { buffer.deallocate() }
            var filled = 0
            try forEachChunk(of: file, status, into: buffer) { filled += $0.count }
            return try storeObject([UnsafeRawBufferPointer(rebasing: buffer[..<filled])], hasher: &hasher).id
        }
        var writer = try makeObjectWriter()
        try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            try forEachChunk(of: file, status, into: buffer) { (chunk) throws(RepositoryError) in try writer.append(chunk) }
        }
        return try writer.finish().id
    }

    /// Nil if the file systems cannot share content.
    private func cloneFile(
        _ file: borrowing FileDescriptor, _ status: FileStatus, _ hasher: inout VerityHasher
    ) throws(RepositoryError) -> ObjectID? {
        guard !activity.cannotClone.load(ordering: .relaxed) else { return nil }
        try beginStoring()
        defer { endStoring() }
        var temporary = try makeTemporary(mode: 0o644)
        do throws(SystemError) {
            try temporary.file.cloneContent(from: file)
        } catch {
            switch error.errno {
            case .notSupported, .crossDevice, .invalidArgument, .notTerminal, .noSystemCall, .notPermitted:
                activity.cannotClone.store(true, ordering: .relaxed)
                return nil
            default: throw .system(error)
            }
        }
        // Hashes the clone and not the source: no other process can change the clone any more.
        try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            try forEachChunk(of: temporary.file, nil, size: status.size, into: buffer) { hasher.update($0) }
        }
        let id = hasher.finalize()
        let path = Layout.objectPath(id)
        let found = try inspect(id, size: status.size, at: path)
        if found == .good { return id }
        return try commit(&temporary, id, size: status.size, at: path, found: found).id
    }
}

/// Reads all of a file that had the given status when it was found. A file that changes meanwhile is an error: half old and half new
/// content would become an object.
private func forEachChunk(
    of file: borrowing FileDescriptor, _ status: FileStatus?, size: UInt64? = nil, into buffer: UnsafeMutableRawBufferPointer,
    _ body: (UnsafeRawBufferPointer) throws(RepositoryError) -> Void
) throws(RepositoryError) {
    let expected = status?.size ?? size ?? 0
    var offset: UInt64 = 0
    while true {
        let count = try system { () throws(SystemError) in try file.preadFully(into: buffer, at: offset) }
        if count > 0 { try body(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
        offset += UInt64(count)
        if count < buffer.count || offset > expected { break }
    }
    guard offset == expected else {
        throw .source(file.kernelPath, .changed(expected: expected, read: offset))
    }
    guard let status else { return }
    let after = try system { () throws(SystemError) in try file.status() }
    guard after.size == status.size, after.mtimeSeconds == status.mtimeSeconds, after.mtimeNanoseconds == status.mtimeNanoseconds,
        after.ctimeSeconds == status.ctimeSeconds, after.ctimeNanoseconds == status.ctimeNanoseconds
    else { throw .source(file.kernelPath, .changed(expected: expected, read: offset)) }
}

/// One walk over a directory: first the tree with everything except large contents, then those in parallel.
private struct DirectoryImport {
    /// Contents up to this size are kept in the tree and in images. Bytes.
    static let inlineLimit: UInt64 = 64
    /// How many files and bytes one job for a thread has.
    private static let jobFiles = 64
    private static let jobBytes: UInt64 = 8 << 20

    typealias Take = @Sendable (borrowing FileDescriptor, FileStatus, inout VerityHasher) throws(RepositoryError) -> ObjectID

    struct Identity: Hashable {
        var device: UInt64
        var inode: UInt64
    }

    struct PendingFile: Sendable {
        var name: ByteString
        var inode: FileTree.InodeID
        var status: FileStatus
    }

    struct Job: Sendable {
        /// Names from the root to the directory that holds the files.
        var directory: [ByteString]
        var files: [PendingFile] = []
        var bytes: UInt64 = 0
    }

    /// The directory that is read.
    final class Root: Sendable {
        let path: ByteString
        let descriptor: FileDescriptor
        let hasFailed = Atomic<Bool>(false)

        init(_ path: ByteString) throws(RepositoryError) {
            self.path = path
            do { descriptor = try FileDescriptor.open(path, [.readOnly, .directory]) } catch { throw .system(error) }
        }

        /// Opens a directory name by name, so that neither a symbolic link nor a long path leads elsewhere.
        func open(_ names: [ByteString]) throws(RepositoryError) -> FileDescriptor {
            try system { () throws(SystemError) in
                var at = try descriptor.open(at: ".", [.readOnly, .directory])
                for name in names { at = try at.open(at: name, [.readOnly, .directory, .noFollow]) }
                return at
            }
        }
    }

    let root: Root
    /// The file system that the walk stays on.
    let device: UInt64
    var tree: FileTree
    var links: [Identity: FileTree.InodeID] = [:]
    var jobs: [Job] = []

    static func run(
        _ path: ByteString, _ threads: Int?, _ foundMountPoint: (ByteString) -> Void, _ take: @escaping Take,
        makeHasher: @escaping @Sendable () -> VerityHasher
    ) throws(RepositoryError) -> FileTree {
        var scan = try DirectoryImport(Root(path))
        try scan.walk(foundMountPoint)
        let root = scan.root
        let results = parallelMap(scan.jobs, threads: threads ?? Host.processorCount) { job -> Result<[ObjectID], RepositoryError> in
            // After a failure the remaining jobs are skipped.
            if root.hasFailed.load(ordering: .relaxed) { return .success([]) }
            do throws(RepositoryError) {
                return .success(try DirectoryImport.contents(of: job, root, take, makeHasher()))
            } catch {
                root.hasFailed.store(true, ordering: .relaxed)
                return .failure(error)
            }
        }
        for result in results {
            if case .failure(let error) = result { throw error }
        }
        for (job, result) in zip(scan.jobs, results) {
            for (file, id) in zip(job.files, try result.get()) {
                do throws(FileTreeError) {
                    try scan.tree.setContent(of: file.inode, to: .external(id, size: file.status.size))
                } catch {
                    throw .source(path, .tree(error))
                }
            }
        }
        return scan.tree
    }

    private init(_ root: Root) throws(RepositoryError) {
        self.root = root
        let descriptor = try root.open([])
        let status = try system { () throws(SystemError) in try descriptor.status() }
        device = status.device
        tree = FileTree(root: try Self.metadata(status, descriptor))
    }

    private static func metadata(_ status: FileStatus, _ handle: borrowing FileDescriptor) throws(RepositoryError) -> Metadata {
        let attributes = try system { () throws(SystemError) in try handle.extendedAttributes() }
        return Metadata(
            permissions: UInt16(truncatingIfNeeded: status.permissions), uid: status.uid, gid: status.gid,
            modified: Timestamp(seconds: status.mtimeSeconds, nanoseconds: status.mtimeNanoseconds),
            extendedAttributes: attributes.map { .init(name: $0.name, value: $0.value) })
    }

    private mutating func walk(_ foundMountPoint: (ByteString) -> Void) throws(RepositoryError) {
        // A list instead of recursion: the directory decides how deep it is.
        var pending: [(names: [ByteString], inode: FileTree.InodeID)] = [([], FileTree.root)]
        while let next = pending.popLast() {
            let directory = try root.open(next.names)
            let entries = try system { () throws(SystemError) in try directory.entries() }
            var job = Job(directory: next.names)
            for entry in entries.sorted(by: { $0.name < $1.name }) {
                // A handle on the entry: type, metadata and content belong to one file, even if another file takes its name meanwhile.
                let handle = try system { () throws(SystemError) in try directory.open(at: entry.name, [.pathOnly, .noFollow]) }
                let status = try system { () throws(SystemError) in try handle.status() }
                if status.kind == .directory {
                    let metadata = try Self.metadata(status, handle)
                    let inode = try inTree { (tree) throws(FileTreeError) in try tree.addDirectory(entry.name, in: next.inode, metadata) }
                    let names = next.names + [entry.name]
                    // Only directories are compared: overlayfs shows files with the device numbers of its layers.
                    if status.device == device {
                        pending.append((names, inode))
                    } else {
                        foundMountPoint(names.dropFirst().reduce(names[0]) { $0 + "/" + $1 })
                    }
                    continue
                }
                let identity = Identity(device: status.device, inode: status.inode)
                if status.links > 1, let leaf = links[identity] {
                    try inTree { (tree) throws(FileTreeError) in try tree.addLink(entry.name, in: next.inode, to: leaf) }
                    continue
                }
                let metadata = try Self.metadata(status, handle)
                let content = try Self.content(status, handle, directory, entry.name)
                let leaf = try inTree { (tree) throws(FileTreeError) in
                    try tree.addLeaf(entry.name, in: next.inode, metadata, content ?? .sparse(size: status.size))
                }
                // overlayfs gives all its whiteouts one inode. They differ by their names only, and an image has an inode for each.
                if status.links > 1, content != .characterDevice(0) { links[identity] = leaf }
                if content == nil {
                    job.files.append(PendingFile(name: entry.name, inode: leaf, status: status))
                    job.bytes &+= status.size
                    if job.files.count >= Self.jobFiles || job.bytes >= Self.jobBytes {
                        jobs.append(job)
                        job = Job(directory: next.names)
                    }
                }
            }
            if !job.files.isEmpty { jobs.append(job) }
        }
    }

    private mutating func inTree<Value>(_ body: (inout FileTree) throws(FileTreeError) -> Value) throws(RepositoryError) -> Value {
        do { return try body(&tree) } catch { throw .source(root.path, .tree(error)) }
    }

    /// Nil for a file whose content becomes an object.
    private static func content(
        _ status: FileStatus, _ handle: borrowing FileDescriptor, _ directory: borrowing FileDescriptor, _ name: ByteString
    ) throws(RepositoryError) -> Content? {
        switch status.kind {
        case .regular:
            if status.size > inlineLimit { return nil }
            let file = try open(name, in: directory, status)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(inlineLimit) + 1, alignment: 1)
            defer { buffer.deallocate() }
            var bytes = ByteString()
            try forEachChunk(of: file, status, into: buffer) { bytes = ByteString($0) }
            return .inline(bytes)
        case .symbolicLink:
            let target = try system { () throws(SystemError) in try handle.readLink(at: "") }
            return .symbolicLink(target)
        case .characterDevice: return .characterDevice(Content.deviceNumber(major: status.deviceMajor, minor: status.deviceMinor))
        case .blockDevice: return .blockDevice(Content.deviceNumber(major: status.deviceMajor, minor: status.deviceMinor))
        case .fifo: return .fifo
        case .socket: return .socket
        case .directory, .unknown: throw .source(handle.kernelPath, .unsupportedType)
        }
    }

    /// Opens a regular file that was found before, and no other file.
    private static func open(
        _ name: ByteString, in directory: borrowing FileDescriptor, _ status: FileStatus
    ) throws(RepositoryError) -> FileDescriptor {
        // Not blocking: a FIFO that took the name must not block the walk.
        let file = try system { () throws(SystemError) in try directory.open(at: name, [.readOnly, .noFollow, .nonBlocking]) }
        let found = try system { () throws(SystemError) in try file.status() }
        guard found.device == status.device, found.inode == status.inode, found.kind == .regular else {
            throw .source(file.kernelPath, .replaced)
        }
        return file
    }

    private static func contents(
        of job: Job, _ root: Root, _ take: Take, _ hasher: consuming VerityHasher
    ) throws(RepositoryError) -> [ObjectID] {
        let directory = try root.open(job.directory)
        var hasher = hasher
        var ids: [ObjectID] = []
        for file in job.files {
            let opened = try open(file.name, in: directory, file.status)
            opened.adviseSequential()
            ids.append(try take(opened, file.status, &hasher))
        }
        return ids
    }
}
