public import ComposefsBytes

/// A process as /proc shows it. Process ID and start time together identify a process within a boot; process IDs alone are reused.
public struct ProcessIdentity: Hashable, Sendable, CustomStringConvertible {
    /// In the caller's PID namespace.
    public var number: Int32
    /// The name of the program, at most 15 bytes (`comm`); empty if it is not known.
    public var name: ByteString
    /// The start time in clock ticks since boot (field 22 of proc_pid_stat(5)).
    public var start: UInt64

    public init(number: Int32, name: ByteString, start: UInt64) {
        self.number = number
        self.name = name
        self.start = start
    }

    /// `process 1234 (cfsoci)`.
    public var description: String { name.isEmpty ? "process \(number)" : "process \(number) (\(name))" }
}

extension Host {
    /// A running process; nil if no process has this ID, if it is a zombie, or if /proc does not show it.
    public static func process(_ number: Int32) -> ProcessIdentity? {
        guard let file = try? FileDescriptor.open(ByteString("/proc/\(number)/stat"), .readOnly),
            let bytes = try? file.readAll(limit: 8192)
        else { return nil }
        // The name is in parentheses and may contain parentheses. The numbers follow the last one.
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")), let close = bytes.lastIndex(of: UInt8(ascii: ")")), open < close else {
            return nil
        }
        let fields = bytes[(close + 1)...].split(separator: UInt8(ascii: " "))
        guard fields.count > 19, let state = fields[0].first, state != UInt8(ascii: "Z"), state != UInt8(ascii: "X"),
            let start = UInt64(String(decoding: fields[19], as: UTF8.self))
        else { return nil }
        return ProcessIdentity(number: number, name: ByteString(bytes[(open + 1)..<close]), start: start)
    }

    /// The processes that hold a flock(2) lock on an open file, according to /proc/locks, in ascending order and without those in invisible
    /// PID namespaces. The kernel lists the process that took the lock, which may have passed it to a child and ended; for such a process
    /// only the ID is known.
    public static func lockHolders(of file: borrowing FileDescriptor) -> [ProcessIdentity] {
        guard let status = try? file.status(), let table = try? FileDescriptor.open("/proc/locks", .readOnly),
            let bytes = try? table.readAll(limit: 1 << 26)
        else { return [] }
        var exact: Set<Int32> = []
        var similar: Set<Int32> = []
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            // 1: FLOCK ADVISORY READ 1234 fe:00:16237119 0 EOF; for a waiting process, an arrow follows the first field.
            let fields = line.split(separator: UInt8(ascii: " "))
            guard fields.count >= 8, fields[1].elementsEqual("FLOCK".utf8), let number = Int32(String(decoding: fields[4], as: UTF8.self)),
                number > 0
            else { continue }
            let parts = fields[5].split(separator: UInt8(ascii: ":")).map { String(decoding: $0, as: UTF8.self) }
            guard parts.count == 3, let major = UInt64(parts[0], radix: 16), let minor = UInt64(parts[1], radix: 16),
                let inode = UInt64(parts[2]), inode == status.inode
            else { continue }
            similar.insert(number)
            if status.device == deviceNumber(major: major, minor: minor) { exact.insert(number) }
        }
        // The table has the file system's own device, which stat(2) does not show on btrfs and overlayfs.
        return (exact.isEmpty ? similar : exact).sorted().map { process($0) ?? ProcessIdentity(number: $0, name: "", start: 0) }
    }

    /// The device of a file's status as the kernel's tables write it, `major:minor` (gnu_dev_major(3), gnu_dev_minor(3)).
    public static func deviceName(_ device: UInt64) -> ByteString {
        ByteString("\((device >> 8 & 0xfff) | (device >> 32 & ~0xfff)):\((device & 0xff) | (device >> 12 & ~0xff & 0xffff_ffff))")
    }

    /// As in st_dev (gnu_dev_makedev(3)).
    private static func deviceNumber(major: UInt64, minor: UInt64) -> UInt64 {
        (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xff) << 12 | (major & ~0xfff) << 32
    }
}
