public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsImageStore
public import ComposefsRepository

/// What `Store.prune` removed, or would remove.
public struct PruneReport: Hashable, Sendable {
    /// Why an image keeps its tags though it was not asked for.
    public enum Use: String, Hashable, Sendable {
        /// It is mounted, in whatever mount namespace.
        case mounted
        /// The kernel's command line names it: this system runs from it.
        case booted
        /// It is among the deployments beside the repository (`state/deploy`).
        case deployed
        /// A boot loader's entry names it.
        case bootEntry = "boot-entry"
    }

    public struct Kept: Hashable, Sendable {
        public var name: ByteString
        public var use: Use
        /// All that uses the image.
        public var uses: [ImageUse]
    }

    /// Tags that went, ascending.
    public var tagsRemoved: [ByteString] = []
    /// Tags that stayed because their images are in use.
    public var tagsKept: [Kept] = []
    /// Records of artifacts whose subjects are not here any more.
    public var referrersRemoved = 0
    public var garbage = GarbageReport()
}

extension Store {
    /// Removes what is of no use: all that no tag keeps, as `collectGarbage`, and records of artifacts that belong to no image that is here.
    ///
    /// - Parameters:
    ///   - all: the tags too, of all images that are not in use: not mounted, booted or deployed, and in no boot entry. Artifacts count as not in use,
    ///     unless they belong to an image that stays. Names below `images/refs` are never touched.
    ///   - dryRun: only say what would be removed.
    ///   - wait: how long to wait for other handles of the repository.
    ///   - cancellation: ends the waiting. Cancelling the task does, too.
    /// - Throws: `RepositoryError`, `ImageStoreError`; `.busy` and `.system` of the former as `collectGarbage`; `CancellationError`.
    public func prune(
        all: Bool = false, dryRun: Bool = false, wait: LockWait = .forever, cancellation: Cancellation = Cancellation()
    ) async throws -> PruneReport {
        try await waiting(cancellation) { try pruneSynchronously(all: all, dryRun: dryRun, wait: wait, cancellation: cancellation) }
    }

    /// The same on the caller's thread.
    ///
    /// - Parameters:
    ///   - confirm: called with the tags that `all` would remove, if there are any, before anything is removed; what it throws ends the call.
    ///   - willWait: called once before waiting for other handles.
    public func pruneSynchronously(
        all: Bool = false, dryRun: Bool = false, wait: LockWait = .forever, cancellation: Cancellation = Cancellation(),
        confirm: (([ByteString]) throws -> Void)? = nil, willWait: (@Sendable () -> Void)? = nil
    ) throws -> PruneReport {
        var plan = try planPrune(all: all)
        if dryRun {
            let gone = plan.tags.union(plan.records).map { "streams/refs/" + $0 }
            plan.report.garbage = try repository.planCollection(without: Set(gone))
            return plan.report
        }
        if let confirm, !plan.report.tagsRemoved.isEmpty { try confirm(plan.report.tagsRemoved) }
        // A tag is not removed when the collection cannot follow. What is in use is asked again then: time has passed.
        try repository.waitForOthers(wait, cancellation, willWait: willWait)
        let confirmed = Set(plan.report.tagsRemoved)
        plan = try planPrune(all: all) { confirmed.contains($0) }
        for name in plan.report.tagsRemoved { try images.untag(name, force: true) }
        for record in plan.records { try repository.removeStreamReference(record) }
        // An image that was mounted meanwhile has lost its tag, and nothing else: the collection looks at what is in use when no one can mount.
        plan.report.garbage = try repository.collectGarbage(wait: wait, cancellation: cancellation, willWait: willWait)
        return plan.report
    }

    private struct PrunePlan {
        var report = PruneReport()
        /// Tags that are removed, as references.
        var tags: Set<ByteString> = []
        var records: [ByteString] = []
    }

    /// - Parameter mayRemove: which tags may be removed.
    private func planPrune(all: Bool, _ mayRemove: (ByteString) -> Bool = { _ in true }) throws -> PrunePlan {
        let uses = try repository.imageUses()
        var plan = PrunePlan()
        if all { try sortTags(uses, &plan.report, mayRemove) }
        plan.tags = Set(plan.report.tagsRemoved.map { ImageTag.prefix + ImageTag.encode($0) })
        plan.records = try images.unneededReferrers(without: plan.tags, kept: images.manifestsInUse(uses))
        plan.report.referrersRemoved = plan.records.count
        return plan
    }

    private func sortTags(_ uses: ImageUses, _ report: inout PruneReport, _ mayRemove: (ByteString) -> Bool) throws {
        for tag in try images.tags() {
            let found = try images.image(tag.manifestDigest).map { uses.uses(of: $0.allImageIDs) } ?? []
            if let first = found.first {
                report.tagsKept.append(.init(name: tag.name, use: PruneReport.Use(first.kind), uses: found))
            } else if mayRemove(tag.name) {
                report.tagsRemoved.append(tag.name)
            }
        }
    }
}

extension PruneReport.Use {
    init(_ kind: ImageUse.Kind) {
        switch kind {
        case .mounted: self = .mounted
        case .booted: self = .booted
        case .deployed: self = .deployed
        case .bootEntry: self = .bootEntry
        }
    }
}
