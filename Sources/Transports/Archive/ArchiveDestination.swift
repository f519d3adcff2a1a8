import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// A tar archive of an OCI image layout. The layout is made in a directory beside the file and goes into the archive when it is complete; then
/// the archive gets its name, in one step. An archive of that name is replaced.
///
/// Entries are in a fixed order and have no times and no owners, so the same image always gives the same archive.
public final class ArchiveDestination: ImageDestination {
    private let layout: LayoutDestination
    private let directory: ByteString
    private let path: ByteString
    /// The archive under its passing name, which is `directory` with `.tar` behind it. Its lock tells that somebody is at it.
    private let archive: FileDescriptor
    private static let suffix: ByteString = ".tar"
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    /// `oci-archive:FILE[:NAME]`
    public init(_ location: ImageLocation) throws {
        let (path, name) = location.located()
        var tag: String?
        switch name {
        case .tag(let text): tag = text
        case nil: break
        case .digest:
            throw OCIError.invalidReference(
                location.text, "an image gets no digest for a name; write oci-archive:FILE or oci-archive:FILE:NAME")
        }
        if let status = try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true), status.kind != .regular {
            throw OCIError.unsupported(document: path.description, "is there already and is no file")
        }
        self.path = path
        Self.removeAbandoned(path)
        var directory = ByteString()
        archive = try Self.begin(path, &directory)
        self.directory = directory
        do {
            layout = try LayoutDestination(directory, name: tag)
        } catch {
            try? FileDescriptor.currentDirectory.unlink(at: directory + Self.suffix)
            throw error
        }
        displayName = "oci-archive:\(path)" + (tag.map { ":" + $0 } ?? "")
    }

    deinit {
        try? Self.removeLayout(directory)
        try? FileDescriptor.currentDirectory.unlink(at: directory + Self.suffix)
    }

    // MARK: What is beside the file meanwhile

    private static let randomCount = 12

    private static func begin(_ path: ByteString, _ directory: inout ByteString) throws(SystemError) -> FileDescriptor {
        let here = FileDescriptor.currentDirectory
        for _ in 0..<8 {
            directory = path + ".tmp-" + ByteString(Host.randomName(randomCount))
            let archive = try here.open(at: directory + suffix, [.writeOnly, .create, .exclusive], mode: 0o644)
            // Who looked for abandoned ones may have come between making and locking it.
            guard try archive.lock(.exclusive, wait: false), let named = try here.statusIfPresent(at: directory + suffix),
                case let own = try archive.status(), own.inode == named.inode, own.device == named.device
            else { continue }
            return archive
        }
        throw SystemError("lock", path, .busy)
    }

    /// Removes what exports into this file have left that were killed. Those that run hold their locks.
    private static func removeAbandoned(_ path: ByteString) {
        let here = FileDescriptor.currentDirectory
        guard let parent = parent(of: path), let entries = try? here.open(at: parent, [.readOnly, .directory]).entries() else { return }
        let name = path.bytes.lastIndex(of: UInt8(ascii: "/")).map { ByteString(path.bytes[($0 + 1)...]) } ?? path
        let prefix = name + ".tmp-"
        for entry in entries where entry.name.hasPrefix(prefix) && entry.name.count == prefix.count + randomCount + suffix.count {
            guard entry.name.bytes.suffix(suffix.count).elementsEqual(suffix.bytes) else { continue }
            let file = parent + "/" + entry.name
            guard let archive = try? here.openIfPresent(at: file, [.readOnly, .noFollow, .nonBlocking]),
                (try? archive.status().kind) == .regular, (try? archive.lock(.exclusive, wait: false)) == true
            else { continue }
            try? removeLayout(ByteString(file.bytes.dropLast(suffix.count)))
            try? here.unlink(at: file)
        }
    }

    // MARK: Blobs and manifests

    public func hasBlob(_ blob: Descriptor) throws -> Bool { try layout.hasBlob(blob) }
    public func mountBlob(_ blob: Descriptor, from source: RegistryReference) -> Bool { false }
    public func putBlob(_ blob: OutgoingBlob) throws -> SentBlob { try layout.putBlob(blob) }

    public func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        try layout.putManifest(manifest, digest: digest, isNamed: isNamed)
    }

    public func finish() throws {
        let here = FileDescriptor.currentDirectory
        let files = try DirectoryFiles(directory)
        for name in ["oci-layout", "index.json"] as [ByteString] { try add(name, files, archive) }
        try archive.writeAll(Self.header("blobs/", size: 0, isDirectory: true))
        for algorithm in DigestAlgorithm.allCases {
            let parent = "blobs/" + ByteString(algorithm.rawValue)
            guard let blobs = try here.openIfPresent(at: directory + "/" + parent, [.readOnly, .directory]) else { continue }
            try archive.writeAll(Self.header(parent + "/", size: 0, isDirectory: true))
            for name in try blobs.entries().map(\.name).sorted() { try add(parent + "/" + name, files, archive) }
        }
        try archive.writeAll([UInt8](repeating: 0, count: 1024))
        try archive.syncData()
        // Only the archive could be left behind now, and it is nothing without its name.
        try? Self.removeLayout(directory)
        try here.rename(at: directory + Self.suffix, to: path)
        if let parent = Self.parent(of: path) { try FileDescriptor.open(parent, [.readOnly, .directory]).sync() }
    }

    private func add(_ name: ByteString, _ files: DirectoryFiles, _ archive: borrowing FileDescriptor) throws {
        guard let file = try files.open(name) else { throw OCIError.notFound(source: directory, "\(name) is missing") }
        try archive.writeAll(Self.header(name, size: file.size, isDirectory: false))
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var position: UInt64 = 0
        while case let count = try file.read(at: position, into: buffer), count > 0 {
            try archive.writeAll(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            position += UInt64(count)
        }
        try archive.writeAll([UInt8](repeating: 0, count: Int((512 - position % 512) % 512)))
    }

    /// A ustar header (POSIX.1-1988): names here have less than 100 bytes. A size of 8 GiB or more is a binary number, as GNU and star have it.
    private static func header(_ name: ByteString, size: UInt64, isDirectory: Bool) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ bytes: some Sequence<UInt8>, _ offset: Int) {
            for (index, byte) in bytes.enumerated() where offset + index < 512 { header[offset + index] = byte }
        }
        func octal(_ value: UInt64, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
        }
        put(name.bytes.prefix(100), 0)
        put(octal(isDirectory ? 0o755 : 0o644, 7).utf8, 100)
        put(octal(0, 7).utf8, 108)
        put(octal(0, 7).utf8, 116)
        if size < 1 << 33 {
            put(octal(size, 11).utf8, 124)
        } else {
            header[124] = 0x80
            put((0..<8).map { UInt8(truncatingIfNeeded: size >> (56 - 8 * UInt64($0))) }, 128)
        }
        put(octal(0, 11).utf8, 136)
        put([UInt8](repeating: 0x20, count: 8), 148)
        header[156] = UInt8(ascii: isDirectory ? "5" : "0")
        put("ustar".utf8, 257)
        put("00".utf8, 263)
        let sum = header.reduce(UInt64(0)) { $0 + UInt64($1) }
        put(Array(octal(sum, 6).utf8) + [0, 0x20], 148)
        return header
    }

    private static func parent(of path: ByteString) -> ByteString? {
        guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == 0 ? "/" : ByteString(Array(path.bytes[..<slash]))
    }

    /// Removes the directory that the layout was made in: two levels of directories below it at most.
    private static func removeLayout(_ path: ByteString, depth: Int = 0) throws {
        let directory = try FileDescriptor.open(path, [.readOnly, .directory, .noFollow])
        for entry in try directory.entries() {
            if entry.kind == .directory, depth < 2 {
                try removeLayout(path + "/" + entry.name, depth: depth + 1)
            } else {
                try directory.unlink(at: entry.name)
            }
        }
        try FileDescriptor.currentDirectory.removeDirectory(at: path)
    }
}
