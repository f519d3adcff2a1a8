public import ComposefsBytes
public import ComposefsLinuxSystem

/// The processes that have the FUSE device open, so far as the caller may inspect processes; root may inspect all that are visible.
public struct FuseServers: Sendable {
    private struct Server {
        var process: Int32
        /// The connections of its open devices (`fuse_connection` in /proc/PID/fdinfo); nil if the kernel does not tell.
        var connections: Set<UInt64>?
    }

    private var servers: [Server] = []

    /// - Throws: `SystemError` if /proc cannot be listed.
    public init() throws(SystemError) {
        let processes = try FileDescriptor.open("/proc", [.readOnly, .directory])
        for entry in try processes.entries() {
            guard let process = Int32(String(decoding: entry.name.bytes, as: UTF8.self)) else { continue }
            var isServer = false
            var connections: Set<UInt64>?
            for number in Self.descriptors(of: process) {
                guard (try? processes.readLink(at: entry.name + "/fd/" + number)) == "/dev/fuse" else { continue }
                isServer = true
                guard let file = try? processes.open(at: entry.name + "/fdinfo/" + number, .readOnly),
                    let connection = Self.connection(in: (try? file.readAll(limit: 1 << 16)) ?? [])
                else { continue }
                connections = (connections ?? []).union([connection])
            }
            if isServer { servers.append(Server(process: process, connections: connections)) }
        }
    }

    /// The processes that may serve a mount. Empty if its server cannot be seen.
    ///
    /// - Returns: `isCertain` if the kernel tells that each of them serves this mount, or the other end of the same connection; otherwise, they are all
    ///   processes of which it does not tell what they serve.
    public func processes(of mount: ImageMount) -> (processes: [Int32], isCertain: Bool) {
        let numbers = mount.device.bytes.split(separator: UInt8(ascii: ":")).compactMap { UInt64(String(decoding: $0, as: UTF8.self)) }
        // The kernel's own form of a device number: 20 bits are the minor number.
        if numbers.count == 2 {
            let connection = numbers[0] << 20 | numbers[1]
            let certain = servers.filter { $0.connections?.contains(connection) == true }
            if !certain.isEmpty { return (certain.map(\.process), true) }
        }
        return (servers.filter { $0.connections == nil }.map(\.process), false)
    }

    private static func connection(in text: [UInt8]) -> UInt64? {
        for line in text.split(separator: UInt8(ascii: "\n")) where line.starts(with: "fuse_connection:".utf8) {
            return UInt64(String(decoding: line.dropFirst("fuse_connection:".utf8.count).drop { $0 == 0x20 || $0 == 0x09 }, as: UTF8.self))
        }
        return nil
    }

    fileprivate static func descriptors(of process: Int32) -> [ByteString] {
        let directory = try? FileDescriptor.open(ByteString("/proc/\(process)/fd"), [.readOnly, .directory])
        return (try? directory?.entries().map(\.name)) ?? []
    }
}

/// A file that a process has open or has mapped into its memory.
public struct ProcessFile: Sendable, Hashable {
    /// Seen from the process's root directory. For a removed file, ` (deleted)` follows.
    public var path: ByteString
    /// A path that the caller can open.
    public var visible: ByteString
    /// Nil for a mapped file.
    public var device: UInt64?
    public var inode: UInt64

    /// The files of a process, and its current directory. Empty if the caller may not inspect it or it has ended. Devices are left out.
    public static func all(of process: Int32) -> [ProcessFile] {
        var found: [ProcessFile] = []
        let base = ByteString("/proc/\(process)")
        for name in ["cwd"] + FuseServers.descriptors(of: process).map({ "fd/" + $0 }) {
            let visible = base + "/" + name
            guard let file = try? FileDescriptor.open(visible, .pathOnly), let status = try? file.status(),
                [.regular, .directory].contains(status.kind), let path = try? FileDescriptor.currentDirectory.readLink(at: visible)
            else { continue }
            found.append(ProcessFile(path: path, visible: visible, device: status.device, inode: status.inode))
        }
        guard let table = try? FileDescriptor.open(base + "/maps", .readOnly), let bytes = try? table.readAll(limit: 1 << 24) else {
            return found
        }
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            // Range, permissions, offset, device, inode, path. Programs and libraries have executable parts.
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
            guard fields.count == 6, !fields[1].contains(UInt8(ascii: "x")),
                let inode = UInt64(String(decoding: fields[4], as: UTF8.self)), inode > 0
            else { continue }
            let path = ByteString(fields[5].drop { $0 == 0x20 })
            guard path.bytes.first == UInt8(ascii: "/"), !found.contains(where: { $0.path == path }) else { continue }
            found.append(ProcessFile(path: path, visible: base + "/root" + path, device: nil, inode: inode))
        }
        return found
    }
}
