internal import ComposefsBytes
internal import ComposefsLinuxSystem

// The image that this system runs from, those that are deployed beside the repository, and those that a boot loader's entries name.
extension Repository {
    /// Directories that boot loaders read, besides `boot` beside the repository.
    private static let bootDirectories: [ByteString] = ["/boot", "/boot/efi", "/efi"]
    /// Entries are a few lines long, and a unified kernel image's command line is.
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

    /// Nil when there is none. One that may not be read is an error for root only: what other users keep is no system's.
    private static func directory(_ parent: borrowing FileDescriptor, _ path: ByteString) throws(SystemError) -> FileDescriptor? {
        do throws(SystemError) {
            return try parent.open(at: path, [.readOnly, .directory])
        } catch {
            if error.errno == .noEntry || error.errno == .notDirectory { return nil }
            if error.errno == .accessDenied, Host.effectiveUserID != 0 { return nil }
            throw error
        }
    }

    private static func addEntries(
        _ boot: borrowing FileDescriptor, _ path: ByteString, to uses: inout ImageUses
    ) throws(SystemError) {
        // Boot Loader Specification: loader/entries/*.conf; bootc and ostree keep further sets in directories of similar names.
        for loader in try boot.entries() where loader.name.hasPrefix("loader") {
            guard let directory = try directory(boot, loader.name) else { continue }
            for entries in try directory.entries() where entries.name.hasPrefix("entries") {
                guard let set = try Self.directory(directory, entries.name) else { continue }
                for entry in try set.entries() where entry.name.hasSuffix(".conf") {
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
            guard entry.name.hasSuffix(".efi") || entry.name.hasSuffix(".EFI") else { continue }
            for id in identifiers(in: entry.name.bytes) { uses.add(id, use) }
            let file = try directory.open(at: entry.name, [.readOnly, .nonBlocking])
            guard try file.status().kind == .regular else { continue }
            for id in bootIdentifiers(in: try commandLine(ofUnified: file)) { uses.add(id, use) }
        }
    }

    /// The section `.cmdline` of a PE file (UAPI unified kernel image); empty when there is none or the file is no PE file.
    static func commandLine(ofUnified file: borrowing FileDescriptor) throws(SystemError) -> [UInt8] {
        func bytes(_ offset: UInt64, _ count: Int) throws(SystemError) -> [UInt8] {
            var buffer = [UInt8](repeating: 0, count: count)
            var failure: SystemError?
            let filled = buffer.withUnsafeMutableBytes { buffer -> Int in
                do throws(SystemError) {
                    return try file.preadFully(into: buffer, at: offset)
                } catch {
                    failure = error
                    return 0
                }
            }
            if let failure { throw failure }
            return Array(buffer[..<filled])
        }
        func number(_ bytes: [UInt8], _ offset: Int, _ size: Int) -> UInt64 {
            guard offset + size <= bytes.count else { return 0 }
            return (0..<size).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        }
        let head = try bytes(0, 64)
        guard head.count == 64, head.starts(with: "MZ".utf8) else { return [] }
        // e_lfanew; there "PE\0\0", the COFF header of 20 bytes, the optional header, then 40 bytes a section.
        let start = number(head, 0x3c, 4)
        let coff = try bytes(start, 24)
        guard coff.count == 24, coff.starts(with: "PE\0\0".utf8) else { return [] }
        let sections = try bytes(start + 24 + number(coff, 20, 2), 40 * Int(number(coff, 6, 2)))
        for at in stride(from: 0, to: sections.count - 39, by: 40) where sections[at..<(at + 8)].elementsEqual(".cmdline".utf8) {
            let (virtualSize, size) = (number(sections, at + 8, 4), number(sections, at + 16, 4))
            return try bytes(number(sections, at + 20, 4), Int(min(virtualSize == 0 ? size : virtualSize, size, UInt64(entryLimit))))
        }
        return []
    }
}
