import ComposefsBootFormats
public import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
public import ComposefsLinuxSystem

/// A boot partition: an EFI system partition, or a file system for `/boot`. Everything on it is reached beneath its directory.
///
/// What is written is durable before anything refers to it: kernels and initial RAM disks first, under names made of their content, and then
/// the entry, which is synced under another name and gets its own by a rename. FAT cannot replace two files at once, so nothing that an entry
/// needs is ever replaced: a power cut leaves the entries that there were, or the new one complete, and at most files that nothing refers to.
public final class BootPartition: Sendable {
    /// As it was given.
    public let path: ByteString
    let root: RootedDirectory

    /// The text of an entry, and of `loader.conf`, in bytes.
    private static let entryLimit = 1 << 20
    /// The beginning of the names of unfinished files.
    static let temporaryPrefix: ByteString = ".cfsoci-"

    public init(_ path: ByteString) throws(SystemError) {
        let directory = try FileDescriptor.openDirectoryToWrite(path)
        self.path = path
        root = RootedDirectory(directory)
    }

    /// Where boot partitions usually are.
    ///
    /// - Parameter sysroot: the directory that holds the repository.
    public static func candidates(_ sysroot: ByteString) -> [ByteString] { ["/boot", "/efi", "/boot/efi", sysroot + "/boot"] }

    /// The first usual place that has entries.
    ///
    /// - Throws: `BootError.noPartition`, `SystemError`.
    public static func find(_ sysroot: ByteString) throws -> BootPartition {
        let candidates = candidates(sysroot)
        for path in candidates {
            for below in [BootEntry.Kind.entry.directory, BootEntry.Kind.unified.directory] {
                if try FileDescriptor.currentDirectory.statusIfPresent(at: path + "/" + below)?.kind == .directory {
                    return try BootPartition(path)
                }
            }
        }
        throw BootError.noPartition(candidates)
    }

    /// Runs `body` while no other process changes the partition.
    func withLock<Result>(_ body: () throws -> Result) throws -> Result {
        // A descriptor of its own: another handle in this process waits too.
        let directory = try root.open(at: ".", [.readOnly, .directory])
        try directory.lock(.exclusive)
        let result = try body()
        // After a failure, closing the directory releases the lock.
        try directory.unlock()
        return result
    }

    private func shown(_ relative: ByteString) -> ByteString { path + "/" + relative }

    // MARK: Reading

    /// All entries, in the order in which boot loaders show them.
    ///
    /// - Throws: `BootError.unreadable`, `SystemError`. An entry that cannot be read may need any file, and any image.
    public func entries() throws -> [BootEntry] {
        var found: [BootEntry] = []
        for file in try files(in: BootEntry.Kind.entry.directory) where Self.folded(file).hasSuffix(".conf") {
            guard let text = try text(BootEntry.Kind.entry.directory + "/" + file) else { continue }
            if let entry = BootEntry(fileName: file, LoaderEntry(parsing: text)) { found.append(entry) }
        }
        for file in try files(in: BootEntry.Kind.unified.directory) where Self.folded(file).hasSuffix(".efi") {
            if let entry = try unified(file) { found.append(entry) }
        }
        return found.sorted { $0.rank < $1.rank }
    }

    /// Nil if the program is none that could be booted.
    private func unified(_ file: ByteString) throws -> BootEntry? {
        let path = BootEntry.Kind.unified.directory + "/" + file
        guard let opened = try open(path) else { return nil }
        let program = try OpenFile(opened)
        do {
            let image = try UnifiedKernelImage(program)
            guard image.kind == .kernel else { return nil }
            return BootEntry(
                fileName: file, OSRelease(parsing: try image.text(".osrel", in: program)?.bytes ?? []),
                try image.commandLine(in: program) ?? KernelCommandLine([]))
        } catch is ExecutableError {
            return nil
        }
    }

    /// The files that any entry of the partition reads, those of further sets of entries too (`loader/entries.*`), in lower case: FAT does not
    /// distinguish it.
    ///
    /// - Parameter orphans: the files of entries that do not count.
    func filesInUse(without orphans: Set<ByteString> = []) throws -> Set<ByteString> {
        var used: Set<ByteString> = []
        for loader in try root.entries(of: ".") ?? [] where Self.folded(loader.name).hasPrefix("loader") {
            for set in try directory(loader.name) where Self.folded(set.name).hasPrefix("entries") {
                let path = loader.name + "/" + set.name
                for file in try files(in: path) where Self.folded(file).hasSuffix(".conf") {
                    guard !orphans.contains(path + "/" + file), let text = try text(path + "/" + file) else { continue }
                    used.formUnion(
                        LoaderEntry(parsing: text).files.map { Self.folded(ByteString($0.bytes.drop { $0 == UInt8(ascii: "/") })) })
                }
            }
        }
        return used
    }

    /// A path on the partition without slashes at its ends and without empty names.
    static func relative(_ path: ByteString) -> ByteString {
        ByteString(path.bytes.split(separator: UInt8(ascii: "/")).joined(separator: [UInt8(ascii: "/")]))
    }

    static func folded(_ name: ByteString) -> ByteString {
        ByteString(name.bytes.map { (0x41...0x5a).contains($0) ? $0 + 0x20 : $0 })
    }

    /// The lines of `loader.conf`; empty if there is none.
    func configuration() throws -> LoaderEntry { LoaderEntry(parsing: try text(Self.configurationPath) ?? []) }

    static let configurationPath: ByteString = "loader/loader.conf"

    private func directory(_ path: ByteString) throws(SystemError) -> [DirectoryEntry] {
        do throws(SystemError) {
            return try root.entries(of: path) ?? []
        } catch {
            guard error.errno == .notDirectory || error.errno == .tooManySymbolicLinks else { throw error }
            return []
        }
    }

    /// The names in a directory, in ascending order. Empty if there is no such directory.
    func files(in path: ByteString) throws(SystemError) -> [ByteString] { try directory(path).map(\.name).sorted() }

    /// The content of a small regular file; nil if there is none.
    private func text(_ path: ByteString) throws -> [UInt8]? {
        guard let file = try open(path) else { return nil }
        do throws(SystemError) {
            return try file.readAll(limit: Self.entryLimit)
        } catch {
            guard error.errno == .fileTooLarge else { throw error }
            throw BootError.unreadable(shown(path), "more than \(Self.entryLimit) bytes are not read")
        }
    }

    /// Nil if there is no regular file.
    func open(_ path: ByteString) throws(SystemError) -> FileDescriptor? {
        do throws(SystemError) {
            guard let file = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking]) else { return nil }
            guard try file.status().kind == .regular else { return nil }
            return file
        } catch {
            // A symbolic link or a socket.
            guard error.errno == .tooManySymbolicLinks || error.errno == .noDeviceOrAddress else { throw error }
            return nil
        }
    }

    // MARK: Writing

    /// Makes a directory with those above it, durably.
    func makeDirectories(_ path: ByteString) throws(SystemError) {
        var at = ByteString()
        for name in path.bytes.split(separator: UInt8(ascii: "/")) {
            let parent = at
            at = at.isEmpty ? ByteString(name) : at + "/" + ByteString(name)
            if try root.makeDirectoryIfMissing(at: at) { try sync(parent) }
        }
    }

    /// Makes the entries of a directory durable.
    func sync(_ directory: ByteString) throws(SystemError) {
        if directory.isEmpty { return try root.sync() }
        try root.open(at: directory, [.readOnly, .directory]).sync()
    }

    /// Writes a file that becomes visible only when it is durable, in place of one of the same name.
    ///
    /// - Parameters:
    ///   - directory: exists.
    ///   - body: writes the content.
    func write(_ name: ByteString, in directory: ByteString, _ body: (borrowing FileDescriptor) throws -> Void) throws {
        let temporary = directory + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
        do {
            let file = try root.open(at: temporary, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
            try body(file)
            try file.sync()
            try root.rename(at: temporary, to: directory + "/" + name)
        } catch {
            try? root.unlink(at: temporary)
            throw error
        }
        try sync(directory)
    }

    /// Removes a file, durably. Nothing happens if there is none.
    func remove(_ path: ByteString) throws(SystemError) {
        do throws(SystemError) {
            try root.unlink(at: path)
        } catch {
            guard error.errno == .noEntry else { throw error }
            return
        }
        try sync(FileDescriptor.split(path).directory)
    }

    // MARK: The default

    /// The entry that is booted next: the one that `loader.conf` chooses, else the first. Nil if there is none.
    ///
    /// A loader may have been told otherwise by other means: a choice in its menu that it saved, or an EFI variable.
    public func defaultEntry(of entries: [BootEntry]) throws -> BootEntry? {
        guard let pattern = try configuration()["default"] else { return entries.first }
        let glob = GlobPattern(Self.folded(pattern))
        return entries.first { glob.matches(Self.folded($0.id)) || glob.matches(Self.folded($0.name.name)) } ?? entries.first
    }

    /// Makes an entry the default of `loader.conf`; nil removes the line, so that the order decides. Other lines stay.
    func setDefault(_ id: ByteString?) throws {
        var configuration = try configuration()
        if let id { configuration.set("default", id) } else { configuration.remove("default") }
        let bytes = configuration.bytes
        try makeDirectories("loader")
        try write("loader.conf", in: "loader") { try $0.writeAll(bytes) }
    }
}
