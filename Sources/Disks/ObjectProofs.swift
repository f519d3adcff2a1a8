import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Synchronization

/// What is known of objects in a repository without fs-verity, so that a copy need not hash them.
final class ObjectProofs: Sendable {
    private let ahead: AheadVerifier?
    private let layers: LayerStreams?
    private let images: ImageStore
    /// When objects were known to be intact for the last time; nil before it is asked for.
    private let times = Mutex<[ObjectID: FileTime]?>(nil)

    init(_ images: ImageStore, ahead: AheadVerifier? = nil, layers: LayerStreams? = nil) {
        self.images = images
        self.ahead = ahead
        self.layers = layers
    }

    /// Whether an object was read and hashed by this process, and its file was not changed since.
    func isVerified(_ id: ObjectID, _ status: FileStatus) -> Bool { ahead?.contains(id, status) ?? false }

    /// The copy begins: what was not verified before is verified by it.
    func endAhead() { ahead?.end() }

    /// Whether the pull that stored an object's layer verified it, and its file was not changed since (Repo-Format.md 7.2, "Layer hint"). For objects
    /// that are shared without being read.
    ///
    /// - Parameter wanted: all objects that will be asked for.
    func isUnchanged(_ id: ObjectID, _ status: FileStatus, among wanted: () -> Set<ObjectID>) throws -> Bool {
        guard let layers else { return false }
        let time = try times.withLock { times in
            let known = try times ?? images.verificationTimes(of: wanted(), in: layers)
            times = known
            return known[id]
        }
        return time.map { FileTime(changeOf: status) <= $0 } ?? false
    }
}

extension ImageStore {
    /// When the pulls of layers had verified objects, by the layers' recorded diff IDs.
    fileprivate func verificationTimes(of wanted: Set<ObjectID>, in layers: LayerStreams) throws -> [ObjectID: FileTime] {
        var found: [ObjectID: FileTime] = [:]
        for (index, diffID) in layers.diffIDs.enumerated() {
            let stream = try layers.stream(index)
            guard try LayerHint.isSet(diffID, on: stream, in: repository), let time = try repository.changeTime(of: stream) else {
                continue
            }
            for id in try repository.openStream(stream).objectReferences where wanted.contains(id) {
                found[id] = max(found[id] ?? time, time)
            }
        }
        return found
    }
}

/// Hashes objects of layers on a thread of its own while others merge the layers, which needs one thread only.
final class AheadVerifier: Sendable {
    private let known: Mutex<ObjectIDTable>
    private let isEnded = Atomic<Bool>(false)
    private let pool = WorkerPool(threads: 1)
    /// Files that were changed later are not taken for verified.
    private let start: FileTime

    /// The most objects that are remembered, about 50 or 80 bytes each.
    private static let limit = 1 << 16
    private static let bufferSize = 1 << 18

    /// Starts, unless there is nothing to win.
    init?(_ repository: Repository, _ layers: LayerStreams) {
        guard !repository.isSecure, Host.processorCount > 1 else { return nil }
        known = Mutex(ObjectIDTable(repository.algorithm))
        // The kernel's clock for file times is some milliseconds late.
        let now = Host.currentTime()
        start = FileTime(seconds: now.seconds - 1, nanoseconds: now.nanoseconds)
        pool.submit { self.run(repository, layers) }
    }

    func contains(_ id: ObjectID, _ status: FileStatus) -> Bool {
        FileTime(changeOf: status) < start && known.withLock { $0.number(of: id) != nil }
    }

    /// Ends the thread after at most one more part of an object.
    func end() {
        isEnded.store(true, ordering: .relaxed)
        pool.shutdown()
    }

    private func run(_ repository: Repository, _ layers: LayerStreams) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferSize, alignment: 4096)
        defer { buffer.deallocate() }
        var hasher = VerityHasher(repository.algorithm)
        for index in layers.diffIDs.indices {
            // Faults are found, and reported, by the copy.
            guard let stream = try? layers.stream(index), let objects = try? repository.openStream(stream).objectReferences else { return }
            for id in objects {
                guard !isEnded.load(ordering: .relaxed) else { return }
                guard (try? hash(id, repository, &hasher, buffer)) == id else { continue }
                guard
                    known.withLock({ known in
                        _ = known.insert(id)
                        return known.count < Self.limit
                    })
                else { return }
            }
        }
    }

    /// Nil if the thread is to end.
    private func hash(
        _ id: ObjectID, _ repository: Repository, _ hasher: inout VerityHasher, _ buffer: UnsafeMutableRawBufferPointer
    ) throws -> ObjectID? {
        let file = try repository.openObject(id, verify: false)
        // Also resets the hasher if a read fails.
        defer { _ = hasher.finalize() }
        var parts = FileParts(into: buffer)
        while let part = try parts.next(of: file) {
            hasher.update(part)
            guard !isEnded.load(ordering: .relaxed) else { return nil }
        }
        return hasher.finalize()
    }
}
