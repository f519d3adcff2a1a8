package import ComposefsBytes
internal import ComposefsLinuxSystem

// Blobs on their way: `.staging/<boot id>/.blob-<digest>`.
//
// The file is two things. Its lock (flock, exclusive) says that somebody is fetching the blob right now, in this process or another one; it
// goes when that process does, however it ends. Its content is the beginning of the blob as far as it has come: whoever gets the lock next
// goes on behind it. Nobody believes that content: it passes through the same digests as what comes from the network.
//
// The file goes when its blob is stored, with a garbage collection, with the boot it was made in (after a power cut its length says nothing),
// and when room is needed for another one.
extension Repository {
    private static let blobPrefix: ByteString = ".blob-"
    /// Somebody removes the file between our opening and locking it; that often in a row it does not happen by chance.
    private static let claimAttempts = 64

    /// Takes a blob for the caller to fetch: as long as the claim lives, nobody else gets it. Nil where somebody else has it.
    ///
    /// Never waits. Who gets the claim looks whether the blob's content has been stored meanwhile, before fetching it.
    ///
    /// - Parameters:
    ///   - name: the digest, as `sha256:…`.
    ///   - size: of the whole blob, in bytes.
    package func claimBlob(_ name: ByteString, size: UInt64) throws(RepositoryError) -> BlobClaim? {
        try Layout.checkEntryName(name)
        try beginPull()
        let directory = stagingDirectory()
        let path = directory + "/" + Self.blobPrefix + name
        do throws(SystemError) {
            for _ in 0..<Self.claimAttempts {
                try removeStranger(at: path)
                let file: FileDescriptor
                do throws(SystemError) {
                    file = try root.open(at: path, [.readWrite, .create, .noFollow, .nonBlocking], mode: 0o600)
                } catch {
                    switch error.errno {
                    case .noEntry:
                        try root.makeDirectoryIfMissing(at: Layout.staging, mode: 0o755)
                        try root.makeDirectoryIfMissing(at: directory, mode: 0o755)
                    // Something else has appeared there, and is removed in the next round.
                    case .tooManySymbolicLinks, .isDirectory, .noDeviceOrAddress: break
                    default: throw error
                    }
                    continue
                }
                guard try file.lock(.exclusive, wait: false) else { return nil }
                // Who had the lock before may have removed the file, and then our lock is on one that nobody else will ever find.
                let own = try file.status()
                guard let named = try root.statusIfPresent(at: path), named.inode == own.inode, named.device == own.device,
                    Self.isClaim(own)
                else { continue }
                return BlobClaim(self, path: path, directory: directory, file: file, length: own.size, blobSize: size)
            }
            throw SystemError("lock", path, .busy)
        } catch {
            throw .system(error)
        }
    }

    /// Whether a file is one that this user's pulls have made. One with another name elsewhere is not: what is written here would be written there.
    private static func isClaim(_ status: FileStatus) -> Bool {
        status.kind == .regular && status.links == 1 && status.uid == Host.effectiveUserID
    }

    /// Takes away what is no claim. Whoever may have put it there, and holds it locked: no pull waits for that.
    private func removeStranger(at path: ByteString) throws(SystemError) {
        guard let status = try root.statusIfPresent(at: path), !Self.isClaim(status), status.links > 0 else { return }
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

    /// How many bytes of a blob somebody, maybe somebody else, has fetched so far.
    package func claimedBytes(_ name: ByteString) -> UInt64 {
        let path = stagingDirectory() + "/" + Self.blobPrefix + name
        return (try? root.statusIfPresent(at: path))?.size ?? 0
    }

    /// Forgets what has been kept of a blob, unless somebody is at it.
    package func dropBlob(_ name: ByteString) {
        guard let status = try? root.statusIfPresent(at: stagingDirectory() + "/" + Self.blobPrefix + name), status.kind == .regular
        else { return }
        if let claim = try? claimBlob(name, size: 0) { claim.remove() }
    }

    /// Whether `size` bytes of the blob `own` can be kept so that all that is kept stays within `limit`; the oldest blobs that nobody is at
    /// go for it.
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

/// A blob that one pull is fetching, and what is kept of it. See `Repository.claimBlob`. Used by one thread at a time.
package final class BlobClaim: @unchecked Sendable {
    /// How often the bounds are looked at anew while a blob grows.
    private static let step: UInt64 = 64 << 20
    /// What a blob's missing bytes take with what is made of them: they are kept once, and stored uncompressed.
    private static let growth: UInt64 = 4
    /// Free space that is left to others: a sixteenth of the file system, no more than this.
    private static let largestReserve: UInt64 = 1 << 30

    /// From this size on what is appended goes to the disk at once and leaves the page cache, which the objects have better use for. Nobody reads
    /// it unless the pull is killed.
    private static let uncachedSize = 128 << 10

    private let repository: Repository
    private let path: ByteString
    private let directory: ByteString
    private let file: FileDescriptor
    private let blobSize: UInt64
    /// Bytes of the blob's beginning that are in the file.
    package private(set) var length: UInt64
    private var limit: UInt64 = 0
    /// Whether what is kept takes space that the pull needs. It goes as soon as it has been read.
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
        // An empty file was only the lock. Removed before the lock goes, so that whoever locks it sees that it is no longer the one.
        if length == 0, !isRemoved { repository.removeBlob(at: path) }
    }

    /// Keeps what will be appended, if there is room; without this call nothing more is kept.
    ///
    /// - Parameter limit: bytes of all blobs that are kept, together.
    package func keep(limit: UInt64) {
        self.limit = limit
        nextCheck = length
        _ = hasRoom()
    }

    /// What is kept, from `offset` on; 0 at its end.
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

    /// The blob's next bytes, behind `length`. Keeping them is a convenience: where it fails, what was kept makes room and the pull goes on.
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

    /// Forgets what is kept and keeps the claim.
    package func clear() {
        length = 0
        nextCheck = 0
        isInTheWay = false
        do throws(SystemError) { try file.truncate(to: 0) } catch { limit = 0 }
    }

    /// The blob is stored, or will not be wanted again.
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
            // Counted as if it were whole. Others grow meanwhile: that is found out at the next step.
            isBounded = (try? repository.makeRoom(in: directory, for: path, size: blobSize, limit: limit)) ?? false
            // A file system that reports no size is not full; what bounds it here is the limit alone.
            isFree = !status.reportsSize || missing <= free / Self.growth
        }
        if isBounded, isFree { return true }
        // What is there stays a beginning to go on from, unless its space is needed.
        limit = 0
        isInTheWay = !isFree
        return false
    }
}
