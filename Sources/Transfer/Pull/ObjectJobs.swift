import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

// The last stage of a pull: the worker pool hashes the contents of files and stores them as objects.

/// Objects that the worker pool stores. The layer's thread creates the value and reads the results when `isDone` is true.
final class PendingObjects: @unchecked Sendable {
    private(set) var results: [StoredObject] = []
    private(set) var failure: (any Error)?
    private let done = Atomic<Bool>(false)

    var isDone: Bool { done.load(ordering: .acquiring) }

    /// Called exactly once, by the worker. A thread that has seen `isDone` also sees everything that was written before.
    func complete(_ outcome: Result<[StoredObject], any Error>) {
        switch outcome {
        case .success(let results): self.results = results
        case .failure(let error): failure = error
        }
        done.store(true, ordering: .releasing)
    }
}

/// Small files that one job stores together, which saves queue operations.
struct ObjectBatch: Sendable {
    struct File: Sendable {
        var chunks: Range<Int>
    }

    var chunks: [Chunk] = []
    var files: [File] = []
    var byteCount = 0
    let pending = PendingObjects()

    /// - Parameter storedObjects: remembers the objects.
    func store(in repository: Repository, _ profile: PullProfile, _ storedObjects: StoredObjects? = nil) {
        pending.complete(
            Result {
                var hasher = VerityHasher(repository.algorithm)
                var results: [StoredObject] = []
                results.reserveCapacity(files.count)
                for file in files {
                    let started = PullProfile.now()
                    var size: UInt64 = 0
                    if let storedObjects { hasher.collectBlockHashes(limit: storedObjects.hashRoom) }
                    for chunk in chunks[file.chunks] {
                        hasher.update(chunk.bytes)
                        size += UInt64(chunk.count)
                    }
                    let id = hasher.finalize()
                    let hashed = PullProfile.now()
                    let parts = chunks[file.chunks].map(\.bytes)
                    results.append(try repository.storeObject(id, size: size, chunks: parts))
                    storedObjects?.insert(id, hasher.takeBlockHashes(), size: size, content: parts)
                    profile.add(.verity, hashed - started)
                    profile.add(.files, PullProfile.now() - hashed)
                }
                return results
            })
    }
}

/// A large file. Its chunks are hashed and written one after the other, by any free worker and never by two at the same time. No worker
/// waits for the next chunk.
final class LargeObject: @unchecked Sendable {
    private struct State {
        var chunks: [Chunk] = []
        var isEnded = false
        var isRunning = false
    }

    let pending = PendingObjects()
    private let state = Mutex(State())
    // Only the running job uses it.
    private var writer: ObjectWriter?
    private let repository: Repository
    private let pool: WorkerPool
    private let finished: @Sendable () -> Void
    private let profile: PullProfile
    private let storedObjects: StoredObjects?

    init(
        _ repository: Repository, pool: WorkerPool, profile: PullProfile, _ storedObjects: StoredObjects?,
        finished: @escaping @Sendable () -> Void
    ) {
        self.storedObjects = storedObjects
        self.repository = repository
        self.pool = pool
        self.profile = profile
        self.finished = finished
    }

    func append(_ chunk: Chunk, isLast: Bool) {
        let start = state.withLock { state in
            state.chunks.append(chunk)
            state.isEnded = isLast
            defer { state.isRunning = true }
            return !state.isRunning
        }
        if start { pool.submit { self.run() } }
    }

    private func run() {
        while true {
            let (chunks, isLast) = state.withLock { state in
                let chunks = state.chunks
                state.chunks = []
                if chunks.isEmpty { state.isRunning = false }
                return (chunks, state.isEnded)
            }
            if chunks.isEmpty { return }
            let started = PullProfile.now()
            defer { profile.add(.verity, PullProfile.now() - started) }
            // After a failure the remaining chunks are only released.
            if pending.isDone { continue }
            do {
                if writer == nil {
                    writer = try repository.makeObjectWriter()
                    if let storedObjects { writer?.collectBlockHashes(limit: storedObjects.hashRoom) }
                }
                for chunk in chunks { try writer?.append(chunk.bytes) }
                if isLast, let stored = try writer.take()?.finishWithBlockHashes() {
                    storedObjects?.insert(stored.object.id, stored.blockHashes, size: stored.object.size)
                    pending.complete(.success([stored.object]))
                    finished()
                }
            } catch {
                writer = nil
                pending.complete(.failure(error))
                finished()
            }
        }
    }
}
