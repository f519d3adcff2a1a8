internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
struct MountEntry: Sendable, Hashable {
    var id: UInt64
    /// The file system's device, `major:minor`.
    var device: ByteString
    /// The mount point, seen from the process's root directory.
    var target: ByteString
    /// The file system's type, with a subtype after a dot.
    var type: ByteString
    var source: ByteString
    /// The file system's options, unescaped.
    var options: [ByteString]

    /// Nil if the line lacks required fields.
    init?(line: some Collection<UInt8>) {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        // There are any number of optional fields between the sixth field and a single hyphen.
        guard fields.count >= 10, let id = UInt64(String(decoding: fields[0], as: UTF8.self)),
            let hyphen = fields.dropFirst(6).firstIndex(where: { $0.elementsEqual(CollectionOfOne(UInt8(ascii: "-"))) }),
            fields.count > hyphen + 3
        else { return nil }
        self.id = id
        device = ByteString(fields[2])
        target = FileDescriptor.unescape(fields[4])
        type = FileDescriptor.unescape(fields[hyphen + 1])
        source = FileDescriptor.unescape(fields[hyphen + 2])
        options = fields[hyphen + 3].split(separator: UInt8(ascii: ",")).map { FileDescriptor.unescape($0) }
    }

    static func all() throws(SystemError) -> [MountEntry] {
        // The table of the thread, which may be in its own namespace.
        let bytes = try FileDescriptor.open("/proc/thread-self/mountinfo", .readOnly).readAll(limit: 1 << 26)
        return bytes.split(separator: UInt8(ascii: "\n")).compactMap { MountEntry(line: $0) }
    }

    /// The mount through which an open file was reached; nil if the table does not list it (outside of a chroot).
    static func containing(_ file: borrowing FileDescriptor) throws(SystemError) -> MountEntry? {
        guard let id = try file.mountID() else { return nil }
        return try all().first { $0.id == id }
    }

    /// The values of an option that may occur more than once.
    private func values(_ name: ByteString) -> [ByteString] {
        let key = name + "="
        return options.filter { $0.hasPrefix(key) }.map { ByteString($0.bytes.dropFirst(key.count)) }
    }

    /// Whether this is a composefs image: overlayfs with data-only layers, whichever tool mounted it, or a mount with this project's
    /// source.
    var isImage: Bool {
        if type == "overlay" {
            return source.hasPrefix("composefs") || !values("datadir+").isEmpty || values("lowerdir").contains { Self.hasDataLayers($0) }
        }
        return isServed && (source.hasPrefix("composefs") || type == "fuse.composefs")
    }

    /// Whether a FUSE server serves it.
    var isServed: Bool { type == "fuse" || type.hasPrefix("fuse.") }

    private static func hasDataLayers(_ lower: ByteString) -> Bool {
        let colon = UInt8(ascii: ":")
        return zip(lower.bytes, lower.bytes.dropFirst()).contains { $0 == colon && $1 == colon }
    }

    /// The lower directories of an overlay as they were given, including the data-only ones.
    var layers: [ByteString] {
        guard type == "overlay" else { return [] }
        return values("lowerdir+") + values("datadir+") + values("lowerdir").flatMap { Self.layers($0) }
    }

    /// Splits layers at colons. In a path, overlayfs escapes a colon with a backslash.
    private static func layers(_ lower: ByteString) -> [ByteString] {
        var layers: [[UInt8]] = [[]]
        var isEscaped = false
        for byte in lower.bytes {
            if !isEscaped, byte == UInt8(ascii: ":") {
                layers.append([])
            } else if !isEscaped, byte == UInt8(ascii: "\\") {
                isEscaped = true
                continue
            } else {
                layers[layers.count - 1].append(byte)
            }
            isEscaped = false
        }
        return layers.filter { !$0.isEmpty }.map { ByteString($0) }
    }
}
