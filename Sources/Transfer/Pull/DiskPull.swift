import ComposefsBytes
import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository

/// Makes disks of an image on a thread of its own while its layers arrive: a layer is merged, and its image is written, as soon as it and all layers
/// below it are stored.
final class DiskPull: Sendable {
    private struct Progress {
        /// Those that are stored so far.
        var streams: [ContentDigest: ObjectID] = [:]
        var outcome: Result<(disks: [KeptDisk], publication: Repository.Publication), any Error>?
    }

    private let progress = Guarded(Progress())
    private let cancellation = Cancellation()
    private let callers: Cancellation.Registration
    private let pool = WorkerPool(threads: 1)
    /// Remembers objects that are being stored, so that the disks need not hash them again, or not even read them.
    let storedObjects: StoredObjects

    /// Starts. Nil if there are no disks to make.
    init?(
        _ requests: [DiskRequest], _ store: ImageStore, _ manifest: ContentDigest, _ diffIDs: [ContentDigest], _ limits: DiskLimits,
        _ reporter: PullReporter, _ cancelled: Cancellation
    ) {
        guard !requests.isEmpty else { return nil }
        callers = cancelled.onCancel { [cancellation, progress] in
            cancellation.cancel()
            progress.change { _ in }
        }
        storedObjects = StoredObjects(store.repository.algorithm, keepsHashes: !store.repository.isSecure)
        let disks = ImageDisks(store)
        var limits = limits
        limits.cancellation = cancellation
        limits.stored = storedObjects
        pool.submit { [limits] in
            let layers = LayerStreams(diffIDs) { try self.stream(of: diffIDs[$0]) }
            let outcome = Result {
                var publication = Repository.Publication()
                let made = try requests.map { request in
                    var limits = limits
                    limits.observer = { reporter.disk(request.kind, $0) }
                    let disk = try disks.keep(request, of: manifest, layers, limits, &publication).disk
                    reporter.image(.diskStored(request.kind))
                    return disk
                }
                return (disks: made, publication: publication)
            }
            self.progress.change { $0.outcome = outcome }
        }
    }

    /// A layer is stored.
    func stored(_ diffID: ContentDigest, _ stream: ObjectID) { progress.change { $0.streams[diffID] = stream } }

    /// Waits for a layer.
    private func stream(of diffID: ContentDigest) throws -> ObjectID {
        let found = progress.wait { progress, _ -> ObjectID?? in
            if cancellation.isCancelled { return .some(nil) }
            return progress.streams[diffID].map { .some($0) }
        }
        guard let found else { throw CancellationError() }
        return found
    }

    /// Waits until all disks, whose layers are stored, are made or have failed.
    func wait() { pool.shutdown() }

    /// Waits for the disks, all of whose layers are stored, and adds them to `publication`.
    func finish(_ publication: inout Repository.Publication) throws -> [KeptDisk] {
        wait()
        guard let outcome = progress.read({ $0.outcome }) else { preconditionFailure("the disks were not made") }
        let made = try outcome.get()
        publication.add(made.publication)
        return made.disks
    }

    /// Ends the thread, if `finish` has not.
    func end() {
        cancellation.cancel()
        progress.change { _ in }
        pool.shutdown()
    }
}
