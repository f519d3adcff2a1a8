public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

/// How files are written outside of the repository.
public struct UnpackOptions: Sendable {
    /// Whether files belong to the user of this process, and not to the image's owners. Device nodes and the attributes that only root can set
    /// (`security.`, `trusted.`) are then left out, and so are set-user-ID and set-group-ID bits, which would give this user's rights to others.
    public var ownedByUser = false
    /// Ends the work with `CancellationError`.
    public var cancellation = Cancellation()

    public init() {}
}

/// What was written.
public struct UnpackReport: Sendable, Hashable, Codable {
    /// Regular files, each inode once.
    public var files = 0
    public var directories = 0
    /// The bytes of the files.
    public var bytes: UInt64 = 0
    /// Files whose blocks are shared with the repository.
    public var shared = 0
    /// Entries, attributes and mode bits that were left out: see `UnpackOptions.ownedByUser`. Also attributes that no file system gives to such a
    /// file.
    public var leftOut = 0
}

extension ImageTree {
    /// Writes a directory of the tree into a directory, durably, with modes, owners, times, extended attributes, hard links, devices, and holes.
    /// Contents are verified, and shared with the repository if the file system can (FICLONE).
    ///
    /// Nothing is written outside of the directory: every entry is made below a descriptor, with a name of one component, in a directory that was
    /// reached without following a link. Until everything is done, only its owner can enter the directory. If the call fails, what it made is removed.
    ///
    /// - Parameters:
    ///   - path: a directory, which is made if it is missing; else it must be empty, and belong to the user of this process.
    /// - Throws: `ExtractionError`, `RepositoryError`, `SystemError`, `CancellationError`.
    public func unpack(into path: ByteString, _ options: UnpackOptions = UnpackOptions()) throws -> UnpackReport {
        guard options.ownedByUser || Host.effectiveUserID == 0 else { throw ExtractionError.ownersNeedRoot }
        guard isDirectory else { throw ExtractionError.notDirectory(path) }
        let isMade = try Self.makeTarget(path)
        do {
            let directory = try FileDescriptor.openDirectoryToWrite(path)
            guard try directory.status().uid == Host.effectiveUserID else { throw ExtractionError.foreignDirectory(path) }
            guard try directory.entries().isEmpty else { throw ExtractionError.notEmptyDirectory(path) }
            let before = try directory.status()
            let lists = try Self.accessLists.compactMap { name in try directory.extendedAttribute(name).map { (name, $0) } }
            let root = RootedDirectory(directory)
            do {
                let report = try TreeUnpacking(self, options).run(into: root)
                if isMade { try root.descriptor.syncName() }
                return report
            } catch {
                for entry in (try? root.descriptor.entries()) ?? [] {
                    if entry.kind == .directory {
                        try? root.removeTree(at: entry.name)
                    } else {
                        try? root.unlink(at: entry.name)
                    }
                }
                try? root.descriptor.changeMode(before.permissions)
                for (name, list) in lists { try? root.descriptor.setExtendedAttribute(name, list) }
                throw error
            }
        } catch {
            // Only if it is empty.
            if isMade { try? FileDescriptor.currentDirectory.removeDirectory(at: path) }
            throw error
        }
    }

    /// A default list would apply to all that is made.
    fileprivate static var accessLists: [ByteString] { ["system.posix_acl_default", "system.posix_acl_access"] }

    private static func makeTarget(_ path: ByteString) throws -> Bool {
        let here = FileDescriptor.currentDirectory
        if try here.makeDirectoryIfMissing(at: path, mode: 0o700) { return true }
        guard try here.statusIfPresent(at: path, follow: true)?.kind == .directory else { throw ExtractionError.notDirectory(path) }
        return false
    }
}

/// Writes a tree in four steps: the directories, then all other inodes on several threads, then further names, and at the end the metadata of the
/// directories, the deepest first.
struct TreeUnpacking: Sendable {
    private let source: ImageTree
    private let options: UnpackOptions
    /// Directories in the order in which they are made, by their paths.
    private var directories: [(path: ByteString, inode: FileTree.InodeID)] = []
    /// Entries of one directory each, which one job makes.
    private var jobs: [[(path: ByteString, inode: FileTree.InodeID)]] = []
    private var links: [(target: ByteString, path: ByteString)] = []

    private static let jobSize = 64

    init(_ source: ImageTree, _ options: UnpackOptions) {
        self.source = source
        self.options = options
        var first: [FileTree.InodeID: ByteString] = [:]
        // The last job of each directory that is not full.
        var open: [ByteString: Int] = [:]
        source.forEachEntry { path, inode in
            guard !source.tree.isDirectory(inode) else {
                directories.append((path, inode))
                return
            }
            if source.tree.linkCount(of: inode) > 1 {
                if let target = first[inode] {
                    links.append((target, path))
                    return
                }
                first[inode] = path
            }
            let parent = FileDescriptor.split(path).directory
            if let job = open[parent], jobs[job].count < Self.jobSize {
                jobs[job].append((path, inode))
            } else {
                open[parent] = jobs.count
                jobs.append([(path, inode)])
            }
        }
    }

    final class Target: Sendable {
        let root: RootedDirectory
        let canClone = Atomic<Bool>(true)
        let next = Atomic<Int>(0)
        let report = Mutex(UnpackReport())
        let failure = Mutex<(job: Int, error: any Error)?>(nil)

        init(_ root: consuming RootedDirectory) { self.root = root }
    }

    func run(into root: borrowing RootedDirectory) throws -> UnpackReport {
        let target = Target(try root.duplicate())
        try target.root.descriptor.changeMode(0o700)
        for name in ImageTree.accessLists {
            if try target.root.descriptor.extendedAttribute(name) != nil { try target.root.descriptor.removeExtendedAttribute(name) }
        }
        for directory in directories {
            try options.cancellation.check()
            try named(directory.path) { try target.root.makeDirectory(at: directory.path, mode: 0o700) }
        }
        target.report.withLock { $0.directories = directories.count }
        try makeFiles(target)
        for link in links {
            // An inode that was left out has no other names.
            if options.ownedByUser, try target.root.statusIfPresent(at: link.target) == nil { continue }
            try named(link.path) { try target.root.link(at: link.target, to: link.path) }
        }
        for directory in directories.reversed() {
            try named(directory.path) {
                let opened = try target.root.open(at: directory.path, [.readOnly, .directory, .noFollow])
                try finish(opened, directory.inode, target)
            }
        }
        try named(".") { try finish(target.root.descriptor, source.start, target) }
        try target.root.syncFileSystem()
        return target.report.withLock { $0 }
    }

    /// Adds the path to an error that does not name it.
    private func named<Result>(_ path: ByteString, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let error as SystemError {
            guard error.errno != .noSpace, error.errno != .quotaExceeded else { throw error }
            throw ExtractionError.entry(path, cause: "\(error)")
        }
    }

    private func makeFiles(_ target: Target) throws {
        guard !jobs.isEmpty else { return }
        let pool = WorkerPool(threads: min(Host.processorCount, jobs.count))
        for _ in 0..<max(1, pool.threadCount) {
            pool.submit {
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
                defer { buffer.deallocate() }
                var hasher = VerityHasher(source.repository.algorithm)
                while target.failure.withLock({ $0 == nil }) {
                    let job = target.next.add(1, ordering: .relaxed).oldValue
                    guard job < jobs.count else { return }
                    do {
                        try options.cancellation.check()
                        try make(jobs[job], target, buffer, &hasher)
                    } catch {
                        // The first of several failures, so that the same fault gives the same message.
                        target.failure.withLock { if $0.map({ job < $0.job }) ?? true { $0 = (job, error) } }
                    }
                }
            }
        }
        pool.shutdown()
        if let failure = target.failure.withLock({ $0 }) { throw failure.error }
    }

    private func make(
        _ entries: [(path: ByteString, inode: FileTree.InodeID)], _ target: Target, _ buffer: UnsafeMutableRawBufferPointer,
        _ hasher: inout VerityHasher
    ) throws {
        guard let first = entries.first else { return }
        let parentPath = FileDescriptor.split(first.path).directory
        let parent =
            parentPath == "."
            ? try target.root.descriptor.duplicate() : try target.root.open(at: parentPath, [.readOnly, .directory, .noFollow])
        for entry in entries {
            let name = FileDescriptor.split(entry.path).name
            try named(entry.path) { try make(name, entry.inode, in: parent, target, buffer, &hasher) }
        }
    }

    /// Makes an entry that is not a directory.
    func make(
        _ name: ByteString, _ inode: FileTree.InodeID, in parent: borrowing FileDescriptor, _ target: Target,
        _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        switch source.tree.content(of: inode) {
        case .symbolicLink(let link)?: try parent.symlink(target: link, at: name)
        case .characterDevice(let device)?: try node(name, .characterDevice, device, in: parent, target, inode)
        case .blockDevice(let device)?: try node(name, .blockDevice, device, in: parent, target, inode)
        case .fifo?: try node(name, .fifo, 0, in: parent, target, inode)
        case .socket?: try node(name, .socket, 0, in: parent, target, inode)
        case let content?:
            let file = try parent.open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o600)
            return try fill(file, content, inode, target, buffer, &hasher)
        case nil: preconditionFailure("a directory is no leaf")
        }
        if source.tree.kind(of: inode) == .symbolicLink { try finish(link: name, inode, in: parent, target) }
    }

    // MARK: Contents

    /// Gives an empty file its content and metadata.
    func fill(
        _ file: borrowing FileDescriptor, _ content: Content, _ inode: FileTree.InodeID, _ target: Target,
        _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        let size = try write(content, to: file, target, buffer, &hasher)
        target.report.withLock {
            $0.files += 1
            $0.bytes += size
        }
        try finish(file, inode, target)
    }

    private func write(
        _ content: Content, to file: borrowing FileDescriptor, _ target: Target, _ buffer: UnsafeMutableRawBufferPointer,
        _ hasher: inout VerityHasher
    ) throws -> UInt64 {
        switch content {
        case .inline(let bytes):
            try file.writeAll(bytes.bytes)
            return UInt64(bytes.count)
        case .sparse(let size):
            try file.truncate(to: size)
            return size
        case .external(let id, let size), .externalWithoutVerity(let id, let size):
            try copy(id, size, to: file, target, buffer, &hasher)
            return size
        default: return 0
        }
    }

    private func copy(
        _ id: ObjectID, _ size: UInt64, to file: borrowing FileDescriptor, _ target: Target, _ buffer: UnsafeMutableRawBufferPointer,
        _ hasher: inout VerityHasher
    ) throws {
        let object = try VerifiedObject(id, size: size, in: source.repository)
        var isShared = false
        if size > 0, target.canClone.load(ordering: .relaxed) {
            do throws(SystemError) {
                try file.cloneContent(from: object.file)
                isShared = true
                target.report.withLock { $0.shared += 1 }
            } catch {
                // Whatever the reason is: copying either works or reports it.
                target.canClone.store(false, ordering: .relaxed)
            }
        }
        var position: UInt64 = 0
        try object.read(buffer, &hasher, needsBytes: !isShared) { bytes, hole in
            if !isShared, !bytes.isEmpty { try file.pwriteAll(bytes, at: position) }
            position += UInt64(bytes.count) + hole
        }
        if !isShared { try file.truncate(to: size) }
    }

    private func node(
        _ name: ByteString, _ kind: FileTree.Kind, _ device: UInt64, in parent: borrowing FileDescriptor, _ target: Target,
        _ inode: FileTree.InodeID
    ) throws {
        if options.ownedByUser, kind == .characterDevice || kind == .blockDevice {
            target.report.withLock { $0.leftOut += 1 }
            return
        }
        let (major, minor) = Content.majorAndMinor(ofDevice: device)
        try parent.makeNode(
            at: name, mode: UInt32(kind.modeBits) | 0o600, device: DeviceNumber(major: major, minor: minor))
        let metadata = source.tree.metadata(of: inode)
        if !options.ownedByUser { try parent.changeOwner(at: name, uid: metadata.uid, gid: metadata.gid) }
        // The node is ours, and no link.
        try parent.changeMode(at: name, permissions(metadata, target))
        try setAttributes(of: metadata, target) { try parent.setExtendedAttribute($0, $1, at: name) }
        try parent.setTime(at: name, seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds)
    }

    // MARK: Metadata

    private func permissions(_ metadata: Metadata, _ target: Target) -> UInt32 {
        guard options.ownedByUser, metadata.permissions & 0o6000 != 0 else { return UInt32(metadata.permissions) }
        target.report.withLock { $0.leftOut += 1 }
        return UInt32(metadata.permissions & ~0o6000)
    }

    /// The owner comes first: a change of it removes set-user-ID bits and capabilities.
    private func finish(_ file: borrowing FileDescriptor, _ inode: FileTree.InodeID, _ target: Target) throws {
        let metadata = source.tree.metadata(of: inode)
        if !options.ownedByUser { try file.changeOwner(uid: metadata.uid, gid: metadata.gid) }
        try file.changeMode(permissions(metadata, target))
        try setAttributes(of: metadata, holdsUserAttributes: true, target) { try file.setExtendedAttribute($0, $1) }
        try file.setTime(seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds)
    }

    private func finish(link name: ByteString, _ inode: FileTree.InodeID, in parent: borrowing FileDescriptor, _ target: Target) throws {
        let metadata = source.tree.metadata(of: inode)
        if !options.ownedByUser { try parent.changeOwner(at: name, uid: metadata.uid, gid: metadata.gid) }
        try setAttributes(of: metadata, target) { try parent.setExtendedAttribute($0, $1, at: name) }
        try parent.setTime(at: name, seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds)
    }

    /// - Parameter holdsUserAttributes: no file system gives `user.` attributes to anything but files and directories.
    private func setAttributes(
        of metadata: Metadata, holdsUserAttributes: Bool = false, _ target: Target, _ set: (ByteString, ByteString) throws -> Void
    ) throws {
        for attribute in metadata.extendedAttributes {
            let needsRoot = attribute.name.hasPrefix("security.") || attribute.name.hasPrefix("trusted.")
            if options.ownedByUser && needsRoot || !holdsUserAttributes && attribute.name.hasPrefix("user.") {
                target.report.withLock { $0.leftOut += 1 }
                continue
            }
            try set(attribute.name, attribute.value)
        }
    }
}
