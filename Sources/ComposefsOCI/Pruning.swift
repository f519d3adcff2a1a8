public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsImageStore
public import ComposefsRepository

/// The result of `Store.prune`: what was removed, or would be removed by a run that is not dry.
public struct PruneReport: Hashable, Sendable {
    /// Why an image keeps its tags.
    public enum Use: String, Hashable, Sendable {
        /// It is mounted, in any mount namespace.
        case mounted
        /// The kernel's command line names it, so this system was booted from it.
        case booted
        /// It has a deployment beside the repository (`state/deploy`).
        case deployed
        /// A boot loader's entry names it.
        case bootEntry = "boot-entry"
    }

    /// A tag that was kept.
    public struct Kept: Hashable, Sendable {
        /// The tag.
        public var name: ByteString
        /// The first reason.
        public var use: Use
        /// All uses of the image.
        public var uses: [ImageUse]
    }

    /// The removed tags, in ascending order.
    public var tagsRemoved: [ByteString] = []
    /// Tags that were kept because their images are in use.
    public var tagsKept: [Kept] = []
    /// The number of removed records of referrers whose subjects are not stored any more.
    public var referrersRemoved = 0
    /// The number of removed records of disks: of images that are not kept any more, or of all images if that was asked for.
    public var disksRemoved = 0
    /// The result of the garbage collection.
    public var garbage = GarbageReport()

    /// The same in numbers.
    public var counts: ImagePruneReport {
        ImagePruneReport(references: tagsRemoved.count, streams: garbage.streamNamesRemoved, bytes: garbage.bytesRemoved)
    }
}

extension Store {
    /// Removes records of referrers and disks of images that are not stored, and then everything that no tag keeps, as `collectGarbage` does.
    ///
    /// - Parameters:
    ///   - all: whether to remove also the tags of all images that are not in use, that is, not mounted, booted, deployed or named by a
    ///     boot entry. An artifact is in use only if it belongs to an image that is kept. Names in `images/refs` are never removed.
    ///   - policy: which of these tags to remove; with a policy, they are removed without `all`, too.
    ///   - disks: whether to remove also the disks of images that are kept. They can be made again.
    ///   - dryRun: whether only to report what would be removed.
    ///   - wait: how long to wait for other handles of the repository.
    ///   - cancellation: ends waiting. Cancelling the task does so too.
    /// - Throws: `RepositoryError`, which is `.busy` after the time limit; `ImageStoreError`; `CancellationError` after a cancellation.
    public func prune(
        all: Bool = false, policy: PrunePolicy? = nil, disks: Bool = false, dryRun: Bool = false, wait: LockWait = .forever,
        cancellation: Cancellation = Cancellation()
    ) async throws -> PruneReport {
        try await waiting(cancellation) {
            try prune(all: all, policy: policy, disks: disks, dryRun: dryRun, wait: wait, cancellation: cancellation)
        }
    }

    /// Removes the tags that a policy selects, and then what `prune` removes. Tags of images that are in use stay.
    ///
    /// - Parameters:
    ///   - policy: which tags to remove; `.unused` for all.
    ///   - dryRun: as for `prune`.
    ///   - wait: as for `prune`.
    ///   - cancellation: as for `prune`.
    /// - Returns: how much was removed; `prune(all:policy:dryRun:wait:cancellation:)` returns names.
    /// - Throws: as `prune`; `ImageFilterError`.
    public func prune(
        _ policy: PrunePolicy, dryRun: Bool = false, wait: LockWait = .forever, cancellation: Cancellation = Cancellation()
    ) async throws -> ImagePruneReport {
        try await waiting(cancellation) {
            try prune(policy: policy, dryRun: dryRun, wait: wait, cancellation: cancellation, confirm: nil).counts
        }
    }

    /// The same on the caller's thread.
    public func prune(
        _ policy: PrunePolicy, dryRun: Bool = false, wait: LockWait = .forever, cancellation: Cancellation = Cancellation()
    ) throws -> ImagePruneReport {
        try prune(policy: policy, dryRun: dryRun, wait: wait, cancellation: cancellation, confirm: nil).counts
    }

    /// The same on the caller's thread.
    ///
    /// - Parameters:
    ///   - all: as for `prune`.
    ///   - policy: as for `prune`.
    ///   - disks: as for `prune`.
    ///   - dryRun: as for `prune`.
    ///   - wait: as for `prune`.
    ///   - cancellation: as for `prune`.
    ///   - confirm: called before anything is removed, with the tags that would be removed, if there are any. An error that it throws
    ///     ends the call.
    ///   - willWait: called once before waiting for other handles.
    public func prune(
        all: Bool = false, policy: PrunePolicy? = nil, disks: Bool = false, dryRun: Bool = false, wait: LockWait = .forever,
        cancellation: Cancellation = Cancellation(), confirm: (([ByteString]) throws -> Void)? = nil,
        willWait: (@Sendable () -> Void)? = nil
    ) throws -> PruneReport {
        var plan = try planPrune(all: all, policy, disks: disks)
        if dryRun {
            let gone = plan.tags.union(plan.records).map { "streams/refs/" + $0 }
            plan.report.garbage = try repository.planCollection(without: Set(gone))
            return plan.report
        }
        if let confirm, !plan.report.tagsRemoved.isEmpty { try confirm(plan.report.tagsRemoved) }
        // Waiting comes first: no tag is removed unless the collection can run. The uses are read again afterwards, because they may have
        // changed.
        try repository.waitForOthers(wait, cancellation, willWait: willWait)
        let confirmed = Set(plan.report.tagsRemoved)
        plan = try planPrune(all: all, policy, disks: disks) { confirmed.contains($0) }
        // An image that is used now was used last when it is not any more.
        images.repository.noteUse(streams: plan.report.tagsKept.flatMap { Self.references(of: $0.name) })
        for name in plan.report.tagsRemoved { try images.untag(name, force: true) }
        for record in plan.records { try repository.removeStreamReference(record) }
        // An image that was mounted in the meantime loses only its tag: the collection reads the uses again while no other process can
        // mount.
        plan.report.garbage = try repository.collectGarbage(wait: wait, cancellation: cancellation, willWait: willWait)
        return plan.report
    }

    /// The references that a name has: that of an image, and that of an index.
    private static func references(of name: ByteString) -> [ByteString] {
        [ImageTag.prefix + ImageTag.encode(name), IndexName.prefix + ImageTag.encode(name)]
    }

    private struct PrunePlan {
        var report = PruneReport()
        /// The removed tags, as references.
        var tags: Set<ByteString> = []
        var records: [ByteString] = []
    }

    /// - Parameter mayRemove: whether a tag may be removed.
    private func planPrune(
        all: Bool, _ policy: PrunePolicy?, disks: Bool, _ mayRemove: (ByteString) -> Bool = { _ in true }
    ) throws -> PrunePlan {
        let uses = try repository.imageUses()
        var plan = PrunePlan()
        if let policy {
            let found = try images.tags(prunedBy: policy, uses)
            plan.report.tagsRemoved = found.removed.map(\.name).filter(mayRemove)
            for tag in found.kept {
                guard let first = tag.uses.first else { continue }
                plan.report.tagsKept.append(.init(name: tag.record.name, use: PruneReport.Use(first.kind), uses: tag.uses))
            }
        } else if all {
            try sortTags(uses, &plan.report, mayRemove)
        }
        plan.tags = Set(plan.report.tagsRemoved.flatMap { Self.references(of: $0) })
        plan.records = try images.unneededRecords(without: plan.tags, kept: images.manifestsInUse(uses))
        if disks {
            let others = try repository.streamReferences(under: DiskRecord.directory).map { DiskRecord.prefix + $0.name }
            plan.records += Set(others).subtracting(plan.records).sorted()
        }
        plan.report.disksRemoved = plan.records.count { $0.hasPrefix(DiskRecord.prefix) }
        plan.report.referrersRemoved = plan.records.count - plan.report.disksRemoved
        return plan
    }

    private func sortTags(_ uses: ImageUses, _ report: inout PruneReport, _ mayRemove: (ByteString) -> Bool) throws {
        let tags = Dictionary(try images.tags().map { ($0.name, $0.manifestDigest) }, uniquingKeysWith: { first, _ in first })
        let indexes = Dictionary(try images.namedIndexes().map { ($0.name, $0.digest) }, uniquingKeysWith: { first, _ in first })
        for name in Set(tags.keys).union(indexes.keys).sorted() {
            let byName = uses.unidentified.filter { $0.mayMean(name) }.map(\.use)
            var ids = try tags[name].flatMap { try images.image($0)?.allImageIDs } ?? []
            if let index = try indexes[name].flatMap({ try images.index($0) }) { ids += images.imageIDs(of: index) }
            let found = uses.uses(of: ids) + byName
            if let first = found.first {
                report.tagsKept.append(.init(name: name, use: PruneReport.Use(first.kind), uses: found))
            } else if mayRemove(name) {
                report.tagsRemoved.append(name)
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
