package import ComposefsBytes
internal import ComposefsLinuxSystem

// Partial blobs: `.staging/<boot id>/.blob-<digest>`.
//
// The file has two purposes. Its lock (flock, exclusive) is the lease of the process that fetches the blob; the kernel releases it when
// that process ends. Its content is the beginning of the blob, as far as it was fetched: the next holder of the lease continues after it.
// That content is not trusted: it passes through the same digests as bytes from the network.
//
// The file is removed when its blob is stored, by a garbage collection, after the boot in which it was made (after a power cut its length
// proves nothing), and when another blob needs the space.
extension Repository {
    private static let blobPrefix: ByteString = ".blob-"
    /// How often the lock is attempted when another process removes the file between our opening and locking it.
    private static let leaseAttempts = 64

    /// Takes the lease of a blob. As long as it exists, no other caller gets it. Nil if another caller has it.
    ///
    /// Never waits. After getting the lease, check whether the blob's content has been stored meanwhile, before fetching it.
    ///
    /// - Parameters:
    ///   - name: the digest, as `sha256:…`.
    ///   - size: of the whole blob, in bytes.
    package func leaseBlob(_ name: ByteString, size: UInt64) throws(RepositoryError) -> BlobLease? {
        try Layout.checkEntryName(name)
        try beginPull()
        let directory = stagingDirectory()
        let path = directory + "/" + Self.blobPrefix + name
        do throws(SystemError) {
            for _ in 0..<Self.leaseAttempts {
                try removeStranger(at: path)
                let file: FileDescriptor
                do throws(SystemError) {
                    file = try root.open(at: path, [.readWrite, .create, .noFollow, .nonBlocking], mode: 0o600)
                } catch {
                    switch error.errno {
                    case .noEntry:
                        try root.makeDirectoryIfMissing(at: Layout.staging, mode: 0o755)
                        try root.makeDirectoryIfMissing(at: directory, mode: 0o755)
                    // Another entry has this name, and is removed in the next round.
                    case .tooManySymbolicLinks, .isDirectory, .noDeviceOrAddress: break
                    default: throw error
                    }
                    continue
                }
                guard try file.lock(.exclusive, wait: false) else { return nil }
                // The previous holder may have removed the file; our lock would then be on a file that no other process can find.
                let own = try file.status()
                guard let named = try root.statusIfPresent(at: path), named.inode == own.inode, named.device == own.device,
                    Self.isPartialBlob(own)
                else { continue }
                return BlobLease(self, path: path, directory: directory, file: file, length: own.size, blobSize: size)
            }
            throw SystemError("lock", path, .busy)
        } catch {
            throw .system(error)
        }
    }

    /// Whether a file was made by this user's pulls. A file with a second name could be one outside of the repository.
    private static func isPartialBlob(_ status: FileStatus) -> Bool {
        status.kind == .regular && status.links == 1 && status.uid == Host.effectiveUserID
    }

    /// Removes an entry that is not a file of ours, even if it is locked: no pull waits for it.
    private func removeStranger(at path: ByteString) throws(SystemError) {
        guard let status = try root.statusIfPresent(at: path), !Self.isPartialBlob(status), status.links > 0 else { return }
        do throws(SystemError) {
            guard status.kind == .directory else { return try root.unlink(at: path) }
            do throws(RepositoryError) {
                try Self.removeTree(path, in: root)
            } catch {
                if case .system(let error) = error { throw error }
                throw SystemError("remove", path, .notEmpty)
            }
        } catch {
            // Another pull was faster.
            guard error.errno == .noEntry else { throw error }
        }
    }

    /// How many bytes of a blob this or another process has fetched so far.
    package func partialBlobLength(_ name: ByteString) -> UInt64 {
        let path = stagingDirectory() + "/" + Self.blobPrefix + name
        return (try? root.statusIfPresent(at: path))?.size ?? 0
    }

    /// Removes the partial blob, unless a process holds its lease.
    package func dropBlob(_ name: ByteString) {
        guard let status = try? root.statusIfPresent(at: stagingDirectory() + "/" + Self.blobPrefix + name), status.kind == .regular
        else { return }
        if let lease = try? leaseBlob(name, size: 0) { lease.remove() }
    }

    /// Whether `size` bytes of the blob `own` can be kept within `limit` for all partial blobs. The oldest ones without a lease are removed
    /// to make room.
    fileprivate func makeRoom(
        in directory: ByteString, for own: ByteString, size: UInt64, limit: UInt64
    ) throws(SystemError) -> Bool {
        guard size <= limit else { return false }
        var others: [(path: ByteString, status: FileStatus)] = []
        for entry in try root.open(at: directory, [.readOnly, .directory]).entries() where entry.name.hasPrefix(Self.blobPrefix) {
            let path = directory + "/" + entry.name
            guard path != own, let status = try root.statusIfPresent(at: path) else { continue }
            others.append((path, status))
        }
        var total = others.reduce(0) { $0 &+ $1.status.size }
        others.sort { ($0.status.mtimeSeconds, $0.status.mtimeNanoseconds) < ($1.status.mtimeSeconds, $1.status.mtimeNanoseconds) }
        for (path, status) in others {
            if total <= limit - size { break }
            guard let file = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking]), try file.lock(.exclusive, wait: false)
            else { continue }
            try root.unlink(at: path)
            total -= status.size
        }
        return total <= limit - size
    }

    fileprivate func removeBlob(at path: ByteString) { try? root.unlink(at: path) }
}

/// The lease of one pull on a blob, and the partial blob. See `Repository.leaseBlob`. Used by one thread at a time.
package final class BlobLease: @unchecked Sendable {
    /// How often the limits are checked again while a blob grows.
    private static let step: UInt64 = 64 << 20
    /// The space that a blob's missing bytes take, relative to their number: they are kept once, and stored uncompressed.
    private static let growth: UInt64 = 4
    /// Free space that is left to other programs: a sixteenth of the file system, but no more than this.
    private static let largestReserve: UInt64 = 1 << 30

    /// From this size on, appended bytes are written to the disk at once and leave the page cache, which objects use better. They are read
    /// again only if the pull is interrupted.
    private static let uncachedSize = 128 << 10

    private let repository: Repository
    private let path: ByteString
    private let directory: ByteString
    private let file: FileDescriptor
    private let blobSize: UInt64
    /// The number of bytes in the file, from the beginning of the blob.
    package private(set) var length: UInt64
    private var limit: UInt64 = 0
    /// Whether the partial blob takes space that the pull needs. It is removed as soon as it has been read.
    private var isInTheWay = false
    private var nextCheck: UInt64 = 0
    private var isRemoved = false

    fileprivate init(
        _ repository: Repository, path: ByteString, directory: ByteString, file: consuming FileDescriptor, length: UInt64, blobSize: UInt64
    ) {
        self.repository = repository
        self.path = path
        self.directory = directory
        self.file = file
        self.length = length
        self.blobSize = blobSize
        if length > blobSize { clear() }
    }

    deinit {
        // An empty file was only the lock. It is removed before the lock is released, so that the next process to lock it notices.
        if length == 0, !isRemoved { repository.removeBlob(at: path) }
    }

    /// Keeps the bytes that are appended, if there is room. Without this call nothing more is kept.
    ///
    /// - Parameter limit: the limit for all partial blobs together, in bytes.
    package func keep(limit: UInt64) {
        self.limit = limit
        nextCheck = length
        _ = hasRoom()
    }

    /// Reads the partial blob from `offset` on; 0 at its end.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(RepositoryError) -> Int {
        guard offset < length else { return 0 }
        let count = min(buffer.count, Int(clamping: length - offset))
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
        do throws(SystemError) {
            return try file.pread(into: part, at: offset)
        } catch {
            throw .system(error)
        }
    }

    /// Appends the blob's next bytes, after `length`. A failure is no error of the pull: the partial blob is removed, and the pull
    /// continues.
    package func append(_ bytes: UnsafeRawBufferPointer) {
        guard limit > 0, hasRoom() else {
            if isInTheWay { clear() }
            return
        }
        do throws(SystemError) {
            try file.pwriteAll(bytes, at: length, leavesCache: bytes.count >= Self.uncachedSize)
            length &+= UInt64(bytes.count)
        } catch {
            clear()
            limit = 0
        }
    }

    /// Removes the partial blob and keeps the lease.
    package func clear() {
        length = 0
        nextCheck = 0
        isInTheWay = false
        do throws(SystemError) { try file.truncate(to: 0) } catch { limit = 0 }
    }

    /// Removes the partial blob: the blob is stored, or will not be fetched again.
    package func remove() {
        guard !isRemoved else { return }
        isRemoved = true
        limit = 0
        repository.removeBlob(at: path)
    }

    private func hasRoom() -> Bool {
        guard length >= nextCheck else { return true }
        nextCheck = length &+ Self.step
        var (isBounded, isFree) = (false, false)
        if let status = try? repository.root.fileSystemStatus() {
            let free = status.availableBytes - min(status.availableBytes, min(status.totalBytes / 16, Self.largestReserve))
            let missing = blobSize - min(length, blobSize)
            // The blob counts with its full size. Other blobs grow meanwhile, which the next check takes into account.
            isBounded = (try? repository.makeRoom(in: directory, for: path, size: blobSize, limit: limit)) ?? false
            // A file system that reports no size is not full; only `limit` applies there.
            isFree = !status.reportsSize || missing <= free / Self.growth
        }
        if isBounded, isFree { return true }
        // The bytes so far are kept for the next pull, unless their space is needed.
        limit = 0
        isInTheWay = !isFree
        return false
    }
}
