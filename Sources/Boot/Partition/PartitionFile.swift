import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem

/// A file that an entry needs, and its place on the boot partition.
struct PartitionFile {
    var directory: ByteString
    var name: ByteString
    var source: StoredFile
    /// In bytes.
    var size: UInt64
    /// Whether the partition has it already.
    var isPresent: Bool
    /// The lines of the image's entry that name it, each with one space.
    var lines: [ByteString] = []

    var path: ByteString { directory + "/" + name }
}

extension BootPartition {
    /// What a file system needs besides the content of a file, in bytes: the rest of its last cluster, and its name.
    private static let overhead: UInt64 = 64 << 10
    /// The keys of entries whose files are named by their content, as suffixes of the names.
    private static let suffixes: [ByteString] = [".linux", ".initrd", ".efi", ".uki", ".devicetree"]

    /// The place of a kernel, an initial RAM disk or another file that is shared by all entries with the same content: its SHA-256 digest is its
    /// name. A file that is there is read, since a power cut may have left half of one.
    func shared(_ source: StoredFile, key: ByteString, in directory: ByteString) throws -> PartitionFile {
        let digest = try Self.digest(of: source)
        var file = PartitionFile(
            directory: directory, name: ByteString(digest.hex) + "." + key, source: source, size: source.byteCount, isPresent: false)
        file.isPresent = try has(file.path, digest, size: file.size)
        return file
    }

    /// The place of a file with a name of its own.
    func named(_ source: StoredFile, _ name: ByteString, in directory: ByteString) throws -> PartitionFile {
        var file = PartitionFile(directory: directory, name: name, source: source, size: source.byteCount, isPresent: false)
        file.isPresent = try has(file.path, try Self.digest(of: source), size: file.size)
        return file
    }

    private func has(_ path: ByteString, _ digest: ContentDigest, size: UInt64) throws -> Bool {
        guard let opened = try open(path) else { return false }
        let file = try OpenFile(opened)
        return try file.byteCount == size && Self.digest(of: .object(file)) == digest
    }

    private static func digest(of source: StoredFile) throws -> ContentDigest {
        var hasher = DigestHasher(.sha256)
        try source.forEachPart { hasher.update($0) }
        return hasher.finalize()
    }

    /// Whether the files that are missing, and an entry, find room.
    ///
    /// - Throws: `BootError.noSpace`. Nothing has been written then.
    func requireSpace(for files: [PartitionFile]) throws {
        let status = try root.fileSystemStatus()
        guard status.reportsSize else { return }
        let needed = files.filter { !$0.isPresent }.reduce(Self.overhead) { $0.saturatingAdd($1.size.saturatingAdd(Self.overhead)) }
        let available = Host.effectiveUserID == 0 ? status.freeBytes : status.availableBytes
        guard needed <= available else { throw BootError.noSpace(path, needed: needed, available: available) }
    }

    /// Writes the files that are missing, in their order. They are durable afterwards.
    func write(_ files: [PartitionFile]) throws {
        for file in files where !file.isPresent {
            try makeDirectories(file.directory)
            try write(file.name, in: file.directory) { target in try file.source.forEachPart { try target.writeAll($0) } }
        }
    }

    /// The files of `directory` that were named by their content, and that no entry reads, with their sizes in bytes; and unfinished files
    /// there and among the entries.
    ///
    /// - Parameter orphans: the files of entries that do not count.
    func unusedFiles(in directories: Set<ByteString>, without orphans: Set<ByteString>) throws -> [(path: ByteString, size: UInt64)] {
        let used = try filesInUse(without: orphans)
        var found: [(path: ByteString, size: UInt64)] = []
        let ours = [BootEntry.Kind.entry.directory, BootEntry.Kind.unified.directory, "loader"]
        for directory in directories.union(ours).sorted() {
            for name in try files(in: directory) {
                let path = directory + "/" + name
                let isUnfinished = name.hasPrefix(Self.temporaryPrefix)
                let isUnused = directories.contains(directory) && Self.isNameOfContent(name) && !used.contains(Self.folded(path))
                guard isUnfinished || isUnused, let status = try root.statusIfPresent(at: path), status.kind == .regular else { continue }
                found.append((path, status.size))
            }
        }
        return found + (try unusedAddons())
    }

    /// The addons of unified kernel images that this program was going to write, or has removed, when the power failed.
    private func unusedAddons() throws -> [(path: ByteString, size: UInt64)] {
        let directory = BootEntry.Kind.unified.directory
        let suffix: ByteString = ".efi.extra.d"
        let names = try files(in: directory)
        var found: [(path: ByteString, size: UInt64)] = []
        for name in names where name.hasPrefix(BootEntry.namePrefix) && name.hasSuffix(suffix) {
            guard !names.contains(ByteString(name.bytes.dropLast(".extra.d".utf8.count))) else { continue }
            for addon in try files(in: directory + "/" + name) {
                let path = directory + "/" + name + "/" + addon
                guard let status = try root.statusIfPresent(at: path), status.kind == .regular else { continue }
                found.append((path, status.size))
            }
        }
        return found
    }

    private static func isNameOfContent(_ name: ByteString) -> Bool {
        guard let suffix = suffixes.first(where: { name.hasSuffix($0) }) else { return false }
        let digest = name.bytes.dropLast(suffix.count)
        return digest.count == 64 && digest.allSatisfy { Hex.value(of: $0) != nil }
    }
}
