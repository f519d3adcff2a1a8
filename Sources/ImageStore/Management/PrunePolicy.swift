import ComposefsBytes
package import ComposefsFileTree
import ComposefsLinuxSystem
package import ComposefsRepository

/// Which tags a prune removes. Conditions are combined: a tag is removed if it satisfies all that are given. One whose image is in use, or
/// cannot be read, is never removed, nor are names below `images/refs`.
public struct PrunePolicy: Sendable, Hashable {
    /// Only tags that were not used for longer than this. A tag whose last use is unknown stays.
    public var olderThan: Duration?
    /// Keeps this many tags of each repository name: those that were used last, of those that the filters select. See
    /// `ImageRecord.repositoryName`.
    public var keep: Int?
    /// Only tags that all of these select; see `ImageSelection`.
    public var filters: [ImageFilter]

    public init(olderThan: Duration? = nil, keep: Int? = nil, filters: [ImageFilter] = []) {
        self.olderThan = olderThan
        self.keep = keep
        self.filters = filters
    }

    /// Every tag of an image that is not in use.
    public static let unused = PrunePolicy()
}

extension ImageStore {
    /// A tag that a policy would remove if its image were not in use, and by what it is used.
    package struct TagInUse: Sendable {
        package var record: ImageRecord
        package var uses: [ImageUse]
    }

    /// The tags that a policy removes, and those that it keeps only because their images are in use; both by name.
    ///
    /// - Parameters:
    ///   - uses: what is in use now.
    ///   - now: the time from which ages are counted.
    package func tags(
        prunedBy policy: PrunePolicy, _ uses: ImageUses, now: Timestamp = .now
    ) throws -> (removed: [ImageRecord], kept: [TagInUse]) {
        let selection = try ImageSelection(policy.filters, in: self)
        var selected: [(record: ImageRecord, uses: [ImageUse])] = []
        for record in try records().records where record.kind == .tag || record.kind == .index {
            // A mount by a name is taken for one of the image that has the name now.
            let byName = uses.unidentified.filter { $0.mayMean(record.name) }.map(\.use)
            let found = uses.uses(of: record.imageIDs) + byName
            if selection.contains(record, isInUse: { !found.isEmpty }) { selected.append((record, found)) }
        }
        if let keep = policy.keep {
            var groups: [ByteString: [(record: ImageRecord, uses: [ImageUse])]] = [:]
            for entry in selected { groups[entry.record.repositoryName, default: []].append(entry) }
            selected = groups.values.flatMap { group in
                group.sorted { Self.isNewer(($0.record, !$0.uses.isEmpty), ($1.record, !$1.uses.isEmpty)) }.dropFirst(max(0, keep))
            }
        }
        if let age = policy.olderThan {
            selected = selected.filter { entry in
                guard let lastUsed = entry.record.lastUsed else { return false }
                return lastUsed.isOlder(than: age, at: now)
            }
        }
        selected.sort { $0.record.name < $1.record.name }
        return (
            selected.filter(\.uses.isEmpty).map(\.record),
            selected.filter { !$0.uses.isEmpty }.map { TagInUse(record: $0.record, uses: $0.uses) }
        )
    }

    /// What is in use, or was used at an unknown time, is newer than everything else.
    private static func isNewer(_ left: (record: ImageRecord, isUsed: Bool), _ right: (record: ImageRecord, isUsed: Bool)) -> Bool {
        if left.isUsed != right.isUsed { return left.isUsed }
        switch (left.record.lastUsed, right.record.lastUsed) {
        case (nil, nil): break
        case (nil, _): return true
        case (_, nil): return false
        case (let first?, let second?): if first != second { return first > second }
        }
        if let first = left.record.pulled, let second = right.record.pulled, first != second { return first > second }
        return left.record.name > right.record.name
    }
}

extension Timestamp {
    package static var now: Timestamp {
        let (seconds, nanoseconds) = Host.currentTime()
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    /// Whether at least this much time has passed at another time.
    func isOlder(than age: Duration, at now: Timestamp) -> Bool {
        let (seconds, attoseconds) = age.components
        let (limit, isOver) = now.seconds.subtractingReportingOverflow(seconds)
        guard !isOver else { return false }
        let nanoseconds = Int64(now.nanoseconds) - attoseconds / 1_000_000_000
        let earliest =
            nanoseconds < 0
            ? Timestamp(seconds: limit &- 1, nanoseconds: UInt32(nanoseconds + 1_000_000_000))
            : Timestamp(seconds: limit, nanoseconds: UInt32(nanoseconds))
        return self <= earliest
    }
}
