import ComposefsBytes
import ComposefsConcurrency
import ComposefsDisks
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository

/// Merges the layers of an image on a thread of its own while they arrive: a layer is merged as soon as it and all layers below it are stored. If the
/// pull makes disks, the same thread makes them, and the merge for the first one is that of the image. Without disks it can be held back until the
/// network is given up.
final class TreePull: Sendable {
    private struct Progress {
        /// Those that are stored so far.
        var streams: [ContentDigest: ObjectID] = [:]
        var isHeldBack: Bool
        /// The merged tree, before any transform.
        var tree: Result<FileTree, any Error>?
        var disks: Result<(disks: [KeptDisk], publication: Repository.Publication), any Error>?
    }

    private let progress: Guarded<Progress>
    private let cancellation = Cancellation()
    private let callers: Cancellation.Registration
    private let pool = WorkerPool(threads: 1)
    private let work: @Sendable () -> Void
    /// Remembers objects that are being stored, so that the disks need not hash them again, or not even read them; nil if there are no disks.
    let storedObjects: StoredObjects?

    /// Larger trees are in use by one thread at a time, and no content is kept beside them: all at once would take too much memory. In entries.
    private static let largestShared = 35_000

    /// Starts.
    ///
    /// - Parameter isHeldBack: whether nothing is merged before `begin`.
    init(
        _ requests: [DiskRequest], _ store: ImageStore, _ manifest: ContentDigest, _ diffIDs: [ContentDigest], _ limits: DiskLimits,
        _ reporter: PullReporter, _ cancelled: Cancellation, isHeldBack: Bool
    ) {
        progress = Guarded(Progress(isHeldBack: isHeldBack))
        callers = cancelled.onCancel { [cancellation, progress] in
            cancellation.cancel()
            progress.change { _ in }
        }
        storedObjects = requests.isEmpty ? nil : StoredObjects(store.repository.algorithm, keepsHashes: !store.repository.isSecure)
        let disks = ImageDisks(store)
        var limits = limits
        limits.cancellation = cancellation
        limits.stored = storedObjects
        // All else needs all attributes.
        let isFiltered = requests.allSatisfy { $0.tree == .composefs && $0.kind.isOfMergedTree }
        let sharing = SharedTree(isFiltered ? .allowlistOnly : nil) { [progress, storedObjects] tree in
            if tree.entryCapacity > Self.largestShared { storedObjects?.dropContent() }
            progress.change { $0.tree = .success(tree) }
        }
        work = { [progress, cancellation, limits] in
            let layers = LayerStreams(diffIDs, sharing: sharing) { try Self.stream(of: diffIDs[$0], progress, cancellation) }
            let outcome = Result {
                var publication = Repository.Publication()
                let made = try requests.map { request in
                    var limits = limits
                    limits.observer = { reporter.disk(request.kind, $0) }
                    let disk = try disks.keep(request, of: manifest, layers, limits, &publication).disk
                    reporter.image(.diskStored(request.kind))
                    return disk
                }
                // The store may have had all disks.
                _ = try store.withTreeLimit(limits.treeBytes) {
                    try store.mergedTree(of: layers, entryLimit: limits.entries, treeLimit: limits.treeBytes)
                }
                sharing.end()
                return (disks: made, publication: publication)
            }
            progress.change { progress in
                if progress.tree == nil, case .failure(let error) = outcome { progress.tree = .failure(error) }
                progress.disks = outcome
            }
        }
        // If the kernel refuses the thread, the caller of `takeTree` does the work: here it would wait for layers forever.
        if pool.threadCount > 0 { pool.submit(work) }
    }

    /// Merges what is stored, if that was held back.
    func begin() { progress.change { $0.isHeldBack = false } }

    /// A layer is stored.
    func stored(_ diffID: ContentDigest, _ stream: ObjectID) { progress.change { $0.streams[diffID] = stream } }

    /// Waits for a layer.
    private static func stream(
        of diffID: ContentDigest, _ progress: Guarded<Progress>, _ cancellation: Cancellation
    ) throws -> ObjectID {
        let found = progress.wait { progress, _ -> ObjectID?? in
            if cancellation.isCancelled { return .some(nil) }
            return progress.isHeldBack ? nil : progress.streams[diffID].map { .some($0) }
        }
        guard let found else { throw CancellationError() }
        return found
    }

    /// Waits for the merged tree, before any transform, and hands it over. All layers are stored.
    func takeTree() throws -> FileTree {
        if pool.threadCount == 0 { work() }
        let tree = try progress.wait { progress, _ in progress.tree.take() }.get()
        if tree.entryCapacity > Self.largestShared { pool.shutdown() }
        return tree
    }

    /// Waits for the disks, all of whose layers are stored, and adds them to `publication`.
    func finish(_ publication: inout Repository.Publication) throws -> [KeptDisk] {
        pool.shutdown()
        guard let outcome = progress.read({ $0.disks }) else { preconditionFailure("the disks were not made") }
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
