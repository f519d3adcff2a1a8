public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsDisks
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsRepository

/// The result of a check of a store, on both levels.
public struct StoreReport: Sendable {
    /// Faults of objects, streams, images, references and `meta.json`.
    public var repository: FsckReport
    /// Faults of manifests, configs, layers and the content that they refer to.
    public var images: ImageReport
    /// Faults of snapshots; those of one image are not those of the snapshots.
    public var snapshots = SnapshotCheckReport()

    /// Whether no fault was found on any level.
    public var isClean: Bool { repository.isOK && images.isClean && snapshots.isClean }

    /// A report from the reports of all levels.
    public init(repository: FsckReport, images: ImageReport, snapshots: SnapshotCheckReport = SnapshotCheckReport()) {
        self.repository = repository
        self.images = images
        self.snapshots = snapshots
    }
}

extension Store {
    /// Checks the repository, and all tagged images or one image, for damage. Repairs nothing.
    ///
    /// Every object is read. A layer whose objects are all intact is re-assembled and hashed only if there is no record that the pull did so before
    /// it published the layer, or with `ImageCheckOptions.deep`; `ImageReport` counts both.
    ///
    /// - Parameters:
    ///   - image: the only image to check, as for `ImageStore.resolve`; nil for all. The repository is checked in either case.
    ///   - options: checks to leave out or to add.
    ///   - progress: called with the number of objects that have been read and the number of all objects, on several threads.
    /// - Throws: `ImageStoreError` if `image` does not exist, `RepositoryError` if a directory cannot be listed. Faults are in the report.
    public func check(
        _ image: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) async throws -> StoreReport {
        try await onOwnThread { try check(image, options, progress: progress) }
    }

    /// The same on the caller's thread.
    public func check(
        _ image: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> StoreReport {
        guard let progress else { return try check(image, options, observer: nil) }
        return try check(image, options) { event in
            if case .objects(let done, let total) = event { progress(done, total) }
        }
    }

    /// The same for an image that is named by text, on another thread.
    public func check(
        _ image: String, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) async throws -> StoreReport {
        try await check(ByteString(image), options, progress: progress)
    }

    /// The same for an image that is named by text, on the caller's thread.
    public func check(
        _ image: String, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> StoreReport {
        try check(ByteString(image), options, progress: progress)
    }

    /// The same, with events for objects and images.
    public func check(
        _ image: ByteString?, _ options: ImageCheckOptions, observer: (@Sendable (StoreCheckEvent) -> Void)?
    ) throws -> StoreReport {
        // An unknown name is reported before all objects are read.
        if let image { _ = try images.resolve(image) }
        let found = try self.repository.check(metadataOnly: options.metadataOnly, subset: options.subset) { done, total in
            observer?(.objects(done: done, total: total))
        }
        observer?(.images)
        // If `streams` is not a directory, there are no images to check; the repository's report has the fault.
        guard !found.problems.contains(where: { $0.kind == .unexpectedFileType && ["streams", "streams/refs"].contains($0.path) })
        else { return StoreReport(repository: found, images: ImageReport()) }
        var report = try images.check(image, options, verified: found.verified)
        report.problems += try images.checkPackingHints(image, options)
        let disks = try ImageDisks(images).check(try image.map { try images.resolve($0).manifestDigest }, deep: options.deep)
        report.problems += disks.problems
        report.disksChecked = disks.checked
        report.disksDamaged = disks.problems.count
        let snapshots = image == nil ? try SnapshotStore(images).check(deep: options.deep) : SnapshotCheckReport()
        return StoreReport(repository: found, images: report, snapshots: snapshots)
    }

    /// Removes everything that no tag or other reference keeps and that is not in use, and the remains of interrupted operations. Waits
    /// until no other handle of the repository is open, in this and other processes. See `Repository.collectGarbage`.
    ///
    /// - Parameters:
    ///   - dryRun: whether only to report what would be removed.
    ///   - extraRoots: names in `streams/` or `images/` that are kept too.
    ///   - wait: how long to wait for other handles.
    ///   - cancellation: ends waiting. Cancelling the task does so too.
    /// - Throws: `RepositoryError`, which is `.busy` after the time limit; `CancellationError` after a cancellation.
    public func collectGarbage(
        dryRun: Bool = false, extraRoots: [ByteString] = [], wait: LockWait = .forever, cancellation: Cancellation = Cancellation()
    ) async throws -> GarbageReport {
        try await waiting(cancellation) {
            try repository.collectGarbage(dryRun: dryRun, extraRoots: extraRoots, wait: wait, cancellation: cancellation)
        }
    }

    /// Runs work that waits for other handles on its own thread. Cancelling the task cancels it.
    ///
    /// - Throws: `CancellationError` after a cancellation; else what `body` throws.
    func waiting<Result: Sendable>(_ cancellation: Cancellation, _ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        do {
            return try await withTaskCancellationHandler {
                try await onOwnThread(body)
            } onCancel: {
                cancellation.cancel()
            }
        } catch RepositoryError.cancelled {
            throw CancellationError()
        }
    }
}
