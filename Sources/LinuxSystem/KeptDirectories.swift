public import ComposefsBytes
internal import ComposefsCLinux
internal import Synchronization

/// The directories `00` to `ff` of a directory, kept open, so that each entry of one does not cost the way to it again.
///
/// A directory is opened beneath the root, without following links, like every other path of a `RootedDirectory`. Another process can move
/// it away while it is kept. Then new entries get into the moved directory: `release` finds that, so nothing that was put into a kept
/// directory may be relied on before `release` has returned.
///
/// All instances of a process together keep at most a quarter of the files that it may have open (RLIMIT_NOFILE). Further directories are
/// opened for one use.
public final class KeptDirectories: Sendable {
    /// An open directory.
    public final class Directory: Sendable {
        let descriptor: FileDescriptor
        /// Whether it counts among those that the process keeps.
        private let isCounted: Bool

        fileprivate init(_ descriptor: consuming FileDescriptor, isCounted: Bool) {
            self.descriptor = descriptor
            self.isCounted = isCounted
        }

        deinit { if isCounted { KeptDirectories.count.subtract(1, ordering: .relaxed) } }
    }

    private let parent: ByteString
    private let slots = Mutex<[Directory?]>(Array(repeating: nil, count: 256))
    private static let count = Atomic<Int>(0)
    /// How many directories the process keeps open.
    private static let largestCount = Host.descriptorLimit / 4

    /// - Parameter parent: the directory that has them, relative to the root.
    public init(of parent: ByteString) { self.parent = parent }

    /// How many directories all instances of the process keep open.
    package static var openCount: Int { count.load(ordering: .relaxed) }

    private static func name(_ index: UInt8) -> ByteString { ByteString([Hex.digit(index >> 4), Hex.digit(index & 15)]) }

    /// The directory with this name, opened now or before; nil if it does not exist.
    public func directory(_ index: UInt8, in root: borrowing RootedDirectory) throws(SystemError) -> Directory? {
        if let kept = slots.withLock({ $0[Int(index)] }) { return kept }
        let path = parent + "/" + Self.name(index)
        guard let descriptor = try root.openIfPresent(at: path, [.pathOnly, .directory]) else { return nil }
        let isCounted = Self.count.add(1, ordering: .relaxed).newValue <= Self.largestCount
        if !isCounted { Self.count.subtract(1, ordering: .relaxed) }
        let new = Directory(descriptor, isCounted: isCounted)
        guard isCounted else { return new }
        return slots.withLock { slots in
            // Another thread may have opened it meanwhile.
            if let kept = slots[Int(index)] { return kept }
            slots[Int(index)] = new
            return new
        }
    }

    /// Closes the directory with this name, because it was removed.
    public func forget(_ index: UInt8) { slots.withLock { $0[Int(index)] = nil } }

    /// Closes all directories.
    ///
    /// - Throws: ESTALE if another directory has the name of one, or none: it was moved or removed with all that was put into it.
    public func release(in root: borrowing RootedDirectory) throws(SystemError) {
        let kept = slots.withLock { slots in
            let kept = slots
            for index in slots.indices { slots[index] = nil }
            return kept
        }
        guard kept.contains(where: { $0 != nil }) else { return }
        let directory = try root.openIfPresent(at: parent, [.pathOnly, .directory])
        for (index, kept) in zip(UInt8.min...UInt8.max, kept) {
            guard let kept else { continue }
            let ours = try kept.descriptor.status()
            let named = try directory?.statusIfPresent(at: Self.name(index), follow: false)
            guard let named, named.inode == ours.inode, named.device == ours.device else {
                throw root.descriptor.failure("store in", -Int(Errno.stale.rawValue), parent + "/" + Self.name(index))
            }
        }
    }
}

extension RootedDirectory {
    /// Like `statusIfPresent(at:)`, for an entry of a directory that is open.
    ///
    /// - Parameter path: the whole path; only its last component is looked up.
    public borrowing func statusIfPresent(at path: ByteString, in directory: KeptDirectories.Directory) throws(SystemError) -> FileStatus? {
        var status = cl_stat()
        let result = Self.withName(of: path) { cl_fstatat(directory.descriptor.raw, $0.baseAddress, $0.count, 0, &status) }
        if result >= 0 { return FileStatus(status) }
        if Errno(result: result) == .noEntry { return nil }
        throw descriptor.failure("stat", result, path)
    }

    /// Like `link(_:at:)`, for an entry of a directory that is open. ENOENT also if that directory was removed.
    public borrowing func link(
        _ file: borrowing FileDescriptor, at path: ByteString, in directory: KeptDirectories.Directory
    ) throws(SystemError) {
        let (root, file) = (descriptor.raw, file.raw)
        let result = path.bytes.withUnsafeBytes { bytes in
            Self.withName(of: path) { name in
                Kernel.call(.link, root, bytes, other: file) { FileDescriptor.linkOpenFile(file, directory.descriptor.raw, name) }
            }
        }
        guard result >= 0 else { throw descriptor.failure("link", result, path) }
    }

    /// Calls `body` with the last component of a path.
    private static func withName(of path: ByteString, _ body: (UnsafeRawBufferPointer) -> Int) -> Int {
        path.bytes.withUnsafeBytes { bytes in
            let start = bytes.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? 0
            return body(UnsafeRawBufferPointer(rebasing: bytes[start...]))
        }
    }
}
