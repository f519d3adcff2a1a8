public import ComposefsBootFormats
public import ComposefsBytes
public import ComposefsHashing

/// An entry of a boot partition: a Type 1 entry, or a unified kernel image.
public struct BootEntry: Sendable, Equatable {
    public enum Kind: String, Sendable {
        case entry
        case unified = "uki"
    }

    public var kind: Kind
    /// The file, relative to the boot partition.
    public var path: ByteString
    /// The file's name without its suffix, and its counters of boot attempts.
    public var name: LoaderEntryName
    public var title: ByteString?
    public var version: ByteString?
    public var sortKey: ByteString?
    public var machineID: ByteString?
    public var options: KernelCommandLine
    /// The images that its arguments name. Empty for another system, and for arguments of another form.
    public var images: [ObjectID]
    /// The files that it reads, relative to the boot partition.
    public var files: [ByteString]
    /// The mark of the system that wrote it; nil for entries of other programs.
    public var system: ByteString?

    /// The name by which boot loaders know it: the file's, without counters.
    public var id: ByteString { name.name + kind.suffix }

    public var rank: EntryRank { EntryRank(name, sortKey: sortKey, machineID: machineID, version: version) }
}

extension BootEntry.Kind {
    /// The directory of such entries on the boot partition.
    var directory: ByteString { self == .entry ? "loader/entries" : "EFI/Linux" }
    var suffix: ByteString { self == .entry ? ".conf" : ".efi" }
}

extension BootEntry {
    /// What entries of this program have in common, so that the version decides which is the newest.
    static let sortKey: ByteString = "composefs"
    /// The beginning of the names that are given to entries.
    static let namePrefix: ByteString = "composefs-"
    /// The comment in an entry that tells which system wrote it.
    private static let mark: ByteString = "# Written by cfsoci for the system "

    /// The line that marks an entry.
    static func mark(of system: ByteString) -> ByteString { mark + system }

    /// A Type 1 entry; nil if the file's name is not that of one.
    init?(fileName: ByteString, _ entry: LoaderEntry) {
        guard let name = Self.entryName(fileName, .entry) else { return nil }
        let options = entry.options
        self.init(
            kind: .entry, path: Kind.entry.directory + "/" + fileName, name: name, title: entry["title"], version: entry["version"],
            sortKey: entry["sort-key"], machineID: entry["machine-id"], options: options, images: Self.images(in: options),
            files: entry.files.map { ByteString($0.bytes.drop { $0 == UInt8(ascii: "/") }) },
            system: entry.lines.first { $0.hasPrefix(Self.mark) }.map { ByteString($0.bytes.dropFirst(Self.mark.count)) })
    }

    /// A unified kernel image; nil if the file's name is not that of one.
    init?(fileName: ByteString, _ release: OSRelease, _ options: KernelCommandLine) {
        guard let name = Self.entryName(fileName, .unified) else { return nil }
        // As systemd-boot picks them (bootspec_pick_name_version_sort_key).
        let version = release["IMAGE_VERSION"] ?? release["VERSION"] ?? release["VERSION_ID"] ?? release["BUILD_ID"]
        self.init(
            kind: .unified, path: Kind.unified.directory + "/" + fileName, name: name, title: release.label, version: version,
            sortKey: release["IMAGE_ID"] ?? release["ID"], machineID: nil, options: options, images: Self.images(in: options), files: [],
            system: Self.system(inName: name.name))
    }

    private static func images(in options: KernelCommandLine) -> [ObjectID] {
        options.arguments.compactMap { try? ComposefsArgument($0)?.id }
    }

    /// Boot loaders and FAT do not distinguish upper and lower case in the suffix.
    private static func entryName(_ fileName: ByteString, _ kind: Kind) -> LoaderEntryName? {
        guard BootPartition.folded(fileName).hasSuffix(kind.suffix) else { return nil }
        return LoaderEntryName(fileName: ByteString(fileName.bytes.dropLast(kind.suffix.count)) + kind.suffix, suffix: kind.suffix)
    }

    /// A name that this program gives: `composefs-SYSTEM-NUMBER`.
    static func name(_ system: ByteString, _ number: Int) -> ByteString { namePrefix + system + "-" + ByteString("\(number)") }

    private static func system(inName name: ByteString) -> ByteString? {
        guard name.hasPrefix(namePrefix) else { return nil }
        let parts = name.bytes.dropFirst(namePrefix.count).split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        return parts.count == 2 && number(parts[1]) != nil ? ByteString(parts[0]) : nil
    }

    /// The number that makes an entry newer than others: in its name, or the beginning of its version.
    var number: Int {
        let last = name.name.hasPrefix(Self.namePrefix) ? name.name.bytes.split(separator: UInt8(ascii: "-")).last : nil
        let first = sortKey == Self.sortKey ? version?.bytes.split(separator: UInt8(ascii: "-")).first : nil
        return max(last.flatMap(Self.number) ?? 0, first.flatMap(Self.number) ?? 0)
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> Int? {
        guard (1...9).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
    }
}
