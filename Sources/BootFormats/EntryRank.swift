public import ComposefsBytes

/// What boot loaders order entries by (UAPI "Boot Loader Specification", Sorting; systemd-boot's `boot_entry_compare`). The smallest entry is
/// the first of the menu, and is booted unless something else is chosen.
public struct EntryRank: Sendable, Equatable, Comparable {
    public var name: LoaderEntryName
    public var sortKey: ByteString?
    public var machineID: ByteString?
    public var version: ByteString?

    public init(_ name: LoaderEntryName, sortKey: ByteString? = nil, machineID: ByteString? = nil, version: ByteString? = nil) {
        self.name = name
        self.sortKey = sortKey
        self.machineID = machineID
        self.version = version
    }

    /// Entries without attempts come last, and those with a sort key before those without. Then follow sort key and machine ID in ascending
    /// order, the newest version, the newest name, and the most attempts left.
    public static func < (lhs: EntryRank, rhs: EntryRank) -> Bool {
        if lhs.name.isBad != rhs.name.isBad { return rhs.name.isBad }
        if (lhs.sortKey == nil) != (rhs.sortKey == nil) { return rhs.sortKey == nil }
        if let left = lhs.sortKey, let right = rhs.sortKey {
            if left != right { return left < right }
            if lhs.machineID != rhs.machineID { return lhs.machineID ?? "" < rhs.machineID ?? "" }
            let order = compareVersions(lhs.version ?? "", rhs.version ?? "")
            if order != 0 { return order > 0 }
        }
        let order = compareVersions(lhs.name.name, rhs.name.name)
        if order != 0 { return order > 0 }
        guard let left = lhs.name.attemptsLeft, let right = rhs.name.attemptsLeft else { return false }
        if left != right { return left > right }
        return lhs.name.attemptsDone < rhs.name.attemptsDone
    }
}
