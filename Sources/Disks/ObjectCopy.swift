import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

/// Copies objects into an image, on several threads. Each is verified: by the kernel's digest, or by one of the bytes that are copied, unless
/// `ObjectProofs` knows it.
///
/// Whole blocks are shared with the image (FICLONERANGE) if the file system can. Otherwise bytes are copied through memory: without fs-verity all of
/// them are hashed, and copy_file_range(2) is not faster than read and write within a file system that cannot share blocks. Zeros are not written.
struct ObjectCopy: Sendable {
    /// Consecutive parts that are copied by one job.
    private struct Job: Sendable {
        var parts: Range<Int>
        /// Whether all parts are read into one buffer and written together.
        var isJoined: Bool
    }

    private static let bufferSize = 1 << 20
    /// Smaller objects are written together with their neighbours.
    private static let largestJoined: UInt64 = 1 << 17
    private static let blockSize: UInt64 = 4096

    fileprivate final class Target: Sendable {
        let file: FileDescriptor
        let isAbandoned = Atomic<Bool>(false)
        let canClone = Atomic<Bool>(true)
        let next = Atomic<Int>(0)
        let failure = Mutex<(job: Int, error: any Error)?>(nil)
        let cancellation: Cancellation
        /// Set if the digest of the file is wanted.
        let hashes: BlockHashes?
        let stored: StoredObjects?

        init(_ file: consuming FileDescriptor, _ cancellation: Cancellation, _ hashes: BlockHashes?, _ stored: StoredObjects?) {
            self.file = file
            self.cancellation = cancellation
            self.hashes = hashes
            self.stored = stored
        }

        /// Takes the hashes of a part's blocks over, if they are known. The object was verified then, and not changed since.
        func takeHashes(of part: ObjectPart, _ status: FileStatus) -> Bool {
            guard let hashes, let known = stored?.hashes(of: part.object, status) else { return false }
            hashes.copy(known, of: part)
            return true
        }

        /// Writes bytes, and lets the device begin with them: the sync at the end has little left to wait for.
        func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
            try file.pwriteAll(bytes, at: offset)
            file.startWriteback(at: offset, count: UInt64(bytes.count))
        }
    }

    private let repository: Repository
    private let parts: ObjectParts
    private let proofs: ObjectProofs?
    private let cancellation: Cancellation
    private var jobs: [Job] = []

    /// - Parameters:
    ///   - parts: in ascending order of their offsets. Parts of one object that follow each other are copied together.
    ///   - proofs: of objects that need not be hashed; nil if the hashes of all blocks are wanted.
    ///   - cancellation: ends the copy before the next job.
    init(_ parts: ObjectParts, from repository: Repository, _ proofs: ObjectProofs?, _ cancellation: Cancellation) {
        self.repository = repository
        self.parts = parts
        self.proofs = proofs
        self.cancellation = cancellation
        var next = parts.startIndex
        var open: (job: Job, first: ObjectPart, last: ObjectPart)?
        for part in parts {
            if let job = open, Self.continues(part, job.job, first: job.first, last: job.last) {
                open = (Job(parts: job.job.parts.lowerBound..<(next + 1), isJoined: job.job.isJoined), job.first, part)
            } else {
                if let open { jobs.append(open.job) }
                let isJoined = part.isWhole && part.objectSize < Self.largestJoined
                open = (Job(parts: next..<(next + 1), isJoined: isJoined), part, part)
            }
            next += 1
        }
        if let open { jobs.append(open.job) }
    }

    /// Whether a part belongs to the job of the parts before it.
    private static func continues(_ part: ObjectPart, _ job: Job, first: ObjectPart, last: ObjectPart) -> Bool {
        if job.isJoined {
            return part.isWhole && part.objectSize < largestJoined && part.offset - last.end < blockSize
                && part.end - first.offset <= UInt64(bufferSize)
        }
        return part.object == first.object && part.objectOffset > last.objectOffset
    }

    /// Starts to copy all parts to a file that reads as zeros so far, and returns.
    ///
    /// - Parameters:
    ///   - hashes: takes the hashes of all blocks, for a repository without fs-verity.
    ///   - stored: objects that need not be hashed for that, or not even read.
    func start(
        into file: borrowing FileDescriptor, _ hashes: BlockHashes? = nil, _ stored: StoredObjects? = nil
    ) throws(SystemError) -> Running {
        precondition(hashes == nil || !repository.isSecure && proofs == nil, "not all blocks are hashed")
        let target = Target(try file.duplicate(), cancellation, hashes, stored)
        guard !jobs.isEmpty else { return Running(target, nil) }
        let pool = WorkerPool(threads: min(Host.processorCount, jobs.count))
        for _ in 0..<max(1, pool.threadCount) {
            pool.submit {
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferSize, alignment: 4096)
                defer { buffer.deallocate() }
                var hasher = VerityHasher(repository.algorithm)
                while target.failure.withLock({ $0 == nil }), !target.isAbandoned.load(ordering: .relaxed), !cancellation.isCancelled {
                    let job = target.next.add(1, ordering: .relaxed).oldValue
                    guard job < jobs.count else { return }
                    do {
                        try run(jobs[job], target, buffer, &hasher)
                    } catch {
                        // The first of several failures, so that the same fault gives the same message.
                        target.failure.withLock { if $0.map({ job < $0.job }) ?? true { $0 = (job, error) } }
                    }
                }
            }
        }
        return Running(target, pool)
    }

    /// A copy that other threads make. One that is dropped before its end stops, and is waited for.
    final class Running {
        private let target: Target
        private var pool: WorkerPool?

        fileprivate init(_ target: Target, _ pool: WorkerPool?) {
            self.target = target
            self.pool = pool
        }

        /// Waits for the end.
        ///
        /// - Throws: `RepositoryError.objectMissing`, `.objectDamaged`, `DiskError.objectSize`, `SystemError`, `CancellationError`.
        func finish() throws {
            pool?.shutdown()
            pool = nil
            if let failure = target.failure.withLock({ $0 }) { throw failure.error }
            try target.cancellation.check()
        }

        deinit {
            target.isAbandoned.store(true, ordering: .relaxed)
            pool?.shutdown()
        }
    }

    private func run(
        _ job: Job, _ target: Target, _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        let parts = Array(parts[job.parts])[...]
        if job.isJoined { return try join(parts, target, buffer, &hasher) }
        guard let first = parts.first else { preconditionFailure("a job without parts") }
        let source = try repository.openObject(first.object, verify: repository.isSecure)
        let status = try status(of: source, first)
        let isShared = clone(parts, from: source, target)
        var isKnown = try isVerified(first, status) || isShared && isUnchanged(first, status)
        if !isKnown { isKnown = parts.allSatisfy { target.takeHashes(of: $0, status) } }
        try copy(parts, beyond: isShared, hashes: !isKnown, from: source, status, target, buffer, &hasher)
    }

    private func status(of file: borrowing FileDescriptor, _ part: ObjectPart) throws -> FileStatus {
        let status = try file.status()
        guard status.size == part.objectSize else {
            throw DiskError.objectSize(part.object, found: status.size, expected: part.objectSize)
        }
        return status
    }

    private func isVerified(_ part: ObjectPart, _ status: FileStatus) -> Bool {
        repository.isSecure || proofs?.isVerified(part.object, status) == true
    }

    private func isUnchanged(_ part: ObjectPart, _ status: FileStatus) throws -> Bool {
        try proofs?.isUnchanged(part.object, status) {
            Set(jobs.filter { !$0.isJoined }.map { parts[$0.parts.lowerBound].object })
        } ?? false
    }

    private func check(_ part: ObjectPart, _ hasher: inout VerityHasher) throws {
        let actual = hasher.finalize()
        guard actual == part.object else { throw RepositoryError.objectDamaged(part.object, .digest(actual)) }
    }

    // MARK: Small objects

    private func join(
        _ parts: ArraySlice<ObjectPart>, _ target: Target, _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        guard let start = parts.first?.offset else { return }
        var filled = 0
        for part in parts {
            let at = Int(part.offset - start)
            if at > filled { zero(buffer, filled..<at) }
            filled = at + Int(part.count)
            let place = UnsafeMutableRawBufferPointer(rebasing: buffer[at..<filled])
            if let small = target.stored?.takeSmall(part.object, into: place) {
                guard small.size == place.count else {
                    throw DiskError.objectSize(part.object, found: UInt64(small.size), expected: part.objectSize)
                }
                target.hashes?.copy(small.hashes, of: part)
                continue
            }
            let file = try repository.openObject(part.object, verify: repository.isSecure)
            let status = try status(of: file, part)
            let count = try file.preadFully(into: place, at: 0)
            guard count == place.count else {
                throw DiskError.objectSize(part.object, found: UInt64(count), expected: part.objectSize)
            }
            guard !isVerified(part, status), !target.takeHashes(of: part, status) else { continue }
            hasher.blockHashes = target.hashes?.place(at: part.offset, count: part.count).baseAddress
            hasher.update(UnsafeRawBufferPointer(place))
            try check(part, &hasher)
        }
        try target.write(UnsafeRawBufferPointer(rebasing: buffer[..<filled]), at: start)
    }

    private func zero(_ buffer: UnsafeMutableRawBufferPointer, _ range: Range<Int>) {
        UnsafeMutableRawBufferPointer(rebasing: buffer[range]).initializeMemory(as: UInt8.self, repeating: 0)
    }

    // MARK: Large objects

    /// Shares the whole blocks of all parts. Returns whether that was possible.
    private func clone(_ parts: ArraySlice<ObjectPart>, from source: borrowing FileDescriptor, _ target: Target) -> Bool {
        for part in parts {
            let whole = part.count & ~(Self.blockSize - 1)
            guard whole > 0 else { continue }
            guard target.canClone.load(ordering: .relaxed) else { return false }
            do throws(SystemError) {
                try target.file.cloneRange(from: source, at: part.objectOffset, to: part.offset, count: whole)
            } catch {
                // Whatever the reason is: copying either works or reports it.
                target.canClone.store(false, ordering: .relaxed)
                return false
            }
        }
        return true
    }

    /// Copies what is not shared, and verifies the object if it is to be hashed.
    private func copy(
        _ parts: ArraySlice<ObjectPart>, beyond isShared: Bool, hashes: Bool, from source: borrowing FileDescriptor, _ status: FileStatus,
        _ target: Target, _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        guard let object = parts.first else { return }
        guard hashes, let table = target.hashes else {
            return try copyContent(parts, beyond: isShared, hashes: hashes, from: source, status, target, buffer, &hasher)
        }
        // Parts of an object may be anywhere in the image.
        let blocks = Int((object.objectSize + Self.blockSize - 1) / Self.blockSize)
        let size = repository.algorithm.digestSize
        let own = UnsafeMutableRawBufferPointer.allocate(byteCount: blocks * size, alignment: 64)
        defer { own.deallocate() }
        hasher.blockHashes = own.baseAddress
        try copyContent(parts, beyond: isShared, hashes: true, from: source, status, target, buffer, &hasher)
        for part in parts { table.copy(UnsafeRawBufferPointer(own), of: part) }
    }

    private func copyContent(
        _ parts: ArraySlice<ObjectPart>, beyond isShared: Bool, hashes: Bool, from source: borrowing FileDescriptor, _ status: FileStatus,
        _ target: Target, _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher
    ) throws {
        guard let object = parts.first else { return }
        var rest = parts
        let hasHoles = status.blocks * 512 < status.size
        var position: UInt64 = 0
        while position < object.objectSize {
            if hasHoles {
                let data = min(try source.nextData(from: position) ?? object.objectSize, object.objectSize)
                if data > position {
                    if hashes { hasher.update(zeros: data - position) }
                    position = data
                    continue
                }
            }
            if !hashes, isShared {
                position = nextTail(&rest, from: position)
                guard position < object.objectSize else { break }
            }
            var end = min(object.objectSize, position + UInt64(buffer.count))
            if hasHoles { end = min(end, try source.nextHole(from: position)) }
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(end - position)])
            let count = try source.preadFully(into: part, at: position)
            guard count == part.count else {
                throw DiskError.objectSize(object.object, found: position + UInt64(count), expected: object.objectSize)
            }
            if hashes { hasher.update(UnsafeRawBufferPointer(part)) }
            try write(UnsafeRawBufferPointer(part), at: position, &rest, beyond: isShared, target)
            position = end
        }
        if hashes { try check(object, &hasher) }
    }

    /// The offset in the object of the next bytes that are not shared; the end of the object if there are none.
    private func nextTail(_ parts: inout ArraySlice<ObjectPart>, from position: UInt64) -> UInt64 {
        while let part = parts.first {
            let tail = part.objectOffset + part.count & ~(Self.blockSize - 1)
            if part.objectOffset + part.count > tail, part.objectOffset + part.count > position { return max(position, tail) }
            parts.removeFirst()
        }
        return .max
    }

    /// Writes bytes of the object to the parts that they belong to.
    private func write(
        _ bytes: UnsafeRawBufferPointer, at position: UInt64, _ parts: inout ArraySlice<ObjectPart>, beyond isShared: Bool, _ target: Target
    ) throws {
        let end = position + UInt64(bytes.count)
        while let part = parts.first, part.objectOffset < end {
            let partEnd = part.objectOffset + part.count
            let shared = isShared ? part.objectOffset + part.count & ~(Self.blockSize - 1) : part.objectOffset
            let (from, to) = (max(position, shared), min(end, partEnd))
            if from < to {
                let piece = UnsafeRawBufferPointer(rebasing: bytes[Int(from - position)..<Int(to - position)])
                if !isZero(piece) { try target.write(piece, at: part.offset + (from - part.objectOffset)) }
            }
            guard partEnd <= end else { return }
            parts.removeFirst()
        }
    }

    /// Ends at the first byte that is not zero, so it costs nothing for other data.
    private func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var at = 0
        while at + 8 <= bytes.count {
            if bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self) != 0 { return false }
            at += 8
        }
        return bytes[at...].allSatisfy { $0 == 0 }
    }
}
