public import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsHashing
import ComposefsImageStore
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsMounting
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
    }

    public struct Kept: Hashable, Sendable {
        public var name: ByteString
        public var use: Use
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
    ///   - all: the tags too, of all images that are not in use: not mounted, booted or deployed. Artifacts count as not in use, save where they
    ///     belong to an image that stays. Names below `images/refs` are never touched.
    ///   - dryRun: only say what would go.
    /// - Throws: `RepositoryError`, `ImageStoreError`; with `all`, `SystemError` where /proc is not mounted.
    public func prune(all: Bool = false, dryRun: Bool = false) async throws -> PruneReport {
        try await onOwnThread { try pruneSynchronously(all: all, dryRun: dryRun) }
    }

    /// The same on the caller's thread.
    ///
    /// - Parameter willWait: called once before waiting for other handles.
    public func pruneSynchronously(
        all: Bool = false, dryRun: Bool = false, willWait: (@Sendable () -> Void)? = nil
    ) throws -> PruneReport {
        var report = PruneReport()
        if all { try sortTags(&report) }
        let tags = Set(report.tagsRemoved.map { ImageTag.prefix + ImageTag.encode($0) })
        let records = try images.unneededReferrers(without: tags)
        report.referrersRemoved = records.count
        if dryRun {
            let gone = tags.union(records).map { "streams/refs/" + $0 }
            report.garbage = try repository.planCollection(without: Set(gone))
            return report
        }
        for name in report.tagsRemoved { try images.untag(name) }
        for record in records { try repository.removeStreamReference(record) }
        report.garbage = try repository.collectGarbage(willWait: willWait)
        return report
    }

    private func sortTags(_ report: inout PruneReport) throws {
        let uses = try imagesInUse()
        for tag in try images.tags() {
            let use = try images.image(tag.manifestDigest).flatMap { image in
                image.allImageIDs.lazy.compactMap { uses[ByteString($0.hex)] }.first
            }
            if let use { report.tagsKept.append(.init(name: tag.name, use: use)) } else { report.tagsRemoved.append(tag.name) }
        }
    }

    /// EROFS images in use, by their identifiers in hex.
    ///
    /// - Throws: where /proc does not tell what is mounted and booted: nothing may be taken for unused then.
    private func imagesInUse() throws -> [ByteString: PruneReport.Use] {
        let mounted = try mountedImages()
        var uses: [ByteString: PruneReport.Use] = [:]
        for name in (try? FileDescriptor.open(repository.path + "/../state/deploy", [.readOnly, .directory]).entries()) ?? [] {
            uses[name.name] = .deployed
        }
        // composefs=HEX, composefs.digest=V1-HEX and the like, with marks before and after the digits.
        let line = try FileDescriptor.open("/proc/cmdline", .readOnly).readAll(limit: 1 << 20)
        for word in line.split(whereSeparator: { $0 == 0x20 || $0 == 0x0a }) where word.starts(with: "composefs".utf8) {
            for part in word.split(whereSeparator: { Hex.value(of: $0) == nil }) where ObjectID(hex: part) != nil {
                uses[ByteString(part)] = .booted
            }
        }
        for name in mounted { uses[name] = .mounted }
        return uses
    }
}
