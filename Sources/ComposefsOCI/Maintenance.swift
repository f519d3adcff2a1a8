public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsRepository

/// What a check of a whole store found, on both levels.
public struct StoreReport: Sendable {
    /// Objects, streams, images, references, `meta.json`.
    public var repository: FsckReport
    /// Manifests, configs, layers and what they refer to.
    public var images: ImageReport

    /// Whether neither level has a fault.
    public var isClean: Bool { repository.isOK && images.isClean }

    public init(repository: FsckReport, images: ImageReport) {
        self.repository = repository
        self.images = images
    }
}

extension Store {
    /// Looks for damage in all of the repository and in every tagged image, or in one; repairs nothing.
    ///
    /// - Parameters:
    ///   - image: only this one (`ImageStore.resolve`), besides the repository itself; nil for all.
    ///   - options: what to leave out and what to do in addition.
    ///   - progress: called with the number of objects read and of all, from several threads.
    /// - Throws: where something cannot be listed, or `image` names nothing; faults are in the report.
    public func check(
        _ image: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) async throws -> StoreReport {
        try await onOwnThread { try checkSynchronously(image, options, progress: progress) }
    }

    /// The same on the caller's thread.
    public func checkSynchronously(
        _ image: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> StoreReport {
        guard let progress else { return try checkSynchronously(image, options, observer: nil) }
        return try checkSynchronously(image, options) { event in
            if case .objects(let done, let total) = event { progress(done, total) }
        }
    }

    /// The same, with all that is told meanwhile.
    public func checkSynchronously(
        _ image: ByteString?, _ options: ImageCheckOptions, observer: (@Sendable (StoreCheckEvent) -> Void)?
    ) throws -> StoreReport {
        // A name that means nothing is told before all objects are read.
        if let image { _ = try images.resolve(image) }
        let found = try self.repository.check(metadataOnly: options.metadataOnly, subset: options.subset) { done, total in
            observer?(.objects(done: done, total: total))
        }
        observer?(.images)
        // Where a directory is none, there are no images to look at, and that is said already.
        guard !found.problems.contains(where: { $0.kind == .unexpectedFileType && ["streams", "streams/refs"].contains($0.path) })
        else { return StoreReport(repository: found, images: ImageReport()) }
        var report = try images.check(image, options, verified: found.verified)
        report.problems += try images.checkPackingMarks(image, options)
        return StoreReport(repository: found, images: report)
    }

    /// Removes everything that no tag or other reference keeps and that is not in use, and what interrupted operations left. Waits until no other
    /// handle of the repository is open, here or in another process. See `Repository.collectGarbage`.
    ///
    /// - Parameters:
    ///   - dryRun: only say what would be removed.
    ///   - extraRoots: names in `streams/` or `images/` that are kept too.
    ///   - wait: how long to wait for other handles.
    ///   - cancellation: ends the waiting. Cancelling the task does, too.
    /// - Throws: `RepositoryError`; `.busy` after the time limit. `CancellationError`.
    public func collectGarbage(
        dryRun: Bool = false, extraRoots: [ByteString] = [], wait: LockWait = .forever, cancellation: Cancellation = Cancellation()
    ) async throws -> GarbageReport {
        try await waiting(cancellation) {
            try repository.collectGarbage(dryRun: dryRun, extraRoots: extraRoots, wait: wait, cancellation: cancellation)
        }
    }

    /// Runs what waits for others on a thread of its own; the task's cancellation is its.
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
