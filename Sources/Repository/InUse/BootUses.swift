internal import ComposefsBootFormats
internal import ComposefsBytes
internal import ComposefsLinuxSystem

// The image that this system runs from, the images that are deployed beside the repository, and those that boot entries name.
extension Repository {
    /// Directories that boot loaders read, besides `boot` beside the repository.
    private static let bootDirectories: [ByteString] = ["/boot", "/boot/efi", "/efi"]
    /// Entries, and the command lines of unified kernel images, have a few lines.
    private static let entryLimit = 1 << 20

    func addBooted(to uses: inout ImageUses) throws(RepositoryError) {
        do throws(SystemError) {
            let line = try FileDescriptor.open("/proc/cmdline", .readOnly).readAll(limit: Self.entryLimit)
            for id in Self.bootIdentifiers(in: line) { uses.add(id, ImageUse(.booted, "/proc/cmdline")) }
            if let deployments = try Self.directory(root.descriptor, "../state/deploy") {
                for entry in try deployments.entries() {
                    for id in Self.identifiers(in: entry.name.bytes) { uses.add(id, ImageUse(.deployed, "state/deploy/" + entry.name)) }
                }
            }
            for path in Self.bootDirectories {
                if let directory = try Self.directory(FileDescriptor.currentDirectory, path) {
                    try Self.addEntries(directory, path, to: &uses)
                }
            }
            if let directory = try Self.directory(root.descriptor, "../boot") { try Self.addEntries(directory, "boot", to: &uses) }
        } catch {
            throw .system(error)
        }
    }

    /// Nil if there is no such directory. A directory that cannot be read is an error for root only: other users' repositories do not hold the
    /// system's images.
    private static func directory(_ parent: borrowing FileDescriptor, _ path: ByteString) throws(SystemError) -> FileDescriptor? {
        do throws(SystemError) {
            return try parent.open(at: path, [.readOnly, .directory])
        } catch {
            if error.isMissing { return nil }
            if error.errno == .accessDenied, Host.effectiveUserID != 0 { return nil }
            throw error
        }
    }

    /// In lower case: FAT, on which most boot partitions are, shows names as they were made, and boot loaders do not distinguish case.
    private static func folded(_ name: ByteString) -> ByteString {
        ByteString(name.bytes.map { (0x41...0x5a).contains($0) ? $0 + 0x20 : $0 })
    }

    private static func addEntries(
        _ boot: borrowing FileDescriptor, _ path: ByteString, to uses: inout ImageUses
    ) throws(SystemError) {
        // Boot Loader Specification: loader/entries/*.conf; bootc and ostree keep further sets in directories of similar names.
        for loader in try boot.entries() where folded(loader.name).hasPrefix("loader") {
            guard let directory = try directory(boot, loader.name) else { continue }
            for entries in try directory.entries() where folded(entries.name).hasPrefix("entries") {
                guard let set = try Self.directory(directory, entries.name) else { continue }
                for entry in try set.entries() where folded(entry.name).hasSuffix(".conf") {
                    try add(set, entry.name, path + "/" + loader.name + "/" + entries.name, to: &uses)
                }
            }
        }
        for name: ByteString in ["grub2", "grub"] {
            guard let directory = try directory(boot, name) else { continue }
            for entry in try directory.entries() where entry.name.hasSuffix(".cfg") {
                try add(directory, entry.name, path + "/" + name, to: &uses)
            }
        }
        // Unified kernel images, with their command line inside.
        for top: ByteString in ["EFI/Linux", "efi/EFI/Linux"] {
            guard let directory = try directory(boot, top) else { continue }
            try addUnified(directory, path + "/" + top, depth: 0, to: &uses)
        }
    }

    private static func add(
        _ directory: borrowing FileDescriptor, _ name: ByteString, _ path: ByteString, to uses: inout ImageUses
    ) throws(SystemError) {
        let file = try directory.open(at: name, [.readOnly, .nonBlocking])
        guard try file.status().kind == .regular else { return }
        for id in bootIdentifiers(in: try file.readAll(limit: entryLimit)) { uses.add(id, ImageUse(.bootEntry, path + "/" + name)) }
    }

    private static func addUnified(
        _ directory: borrowing FileDescriptor, _ path: ByteString, depth: Int, to uses: inout ImageUses
    ) throws(SystemError) {
        for entry in try directory.entries() {
            let use = ImageUse(.bootEntry, path + "/" + entry.name)
            if depth < 2, let below = try Self.directory(directory, entry.name) {
                try addUnified(below, path + "/" + entry.name, depth: depth + 1, to: &uses)
                continue
            }
            guard folded(entry.name).hasSuffix(".efi") else { continue }
            for id in identifiers(in: entry.name.bytes) { uses.add(id, use) }
            let file = try directory.open(at: entry.name, [.readOnly, .nonBlocking])
            guard try file.status().kind == .regular else { continue }
            for id in bootIdentifiers(in: try commandLines(ofUnified: OpenFile(file))) { uses.add(id, use) }
        }
    }

    /// The kernel arguments in a unified kernel image, those of all its profiles. Empty if the file is not an EFI program.
    /// The readable parts of a damaged file count, so that an image is rather kept.
    static func commandLines(ofUnified file: OpenFile) throws(SystemError) -> [UInt8] {
        var text: [UInt8] = []
        do {
            let program = try PortableExecutable(file)
            for section in program.sections where section.name == ".cmdline" {
                // A space keeps two lines from becoming one argument.
                text += try program.start(of: section, in: file, limit: entryLimit) + [0x20]
            }
        } catch let error as SystemError {
            throw error
        } catch {
            // Not an EFI program.
        }
        return text
    }
}
