public import ComposefsBytes
internal import ComposefsCLinux

/// Attributes of a mount (linux/mount.h, MOUNT_ATTR_*).
public struct MountAttributes: OptionSet, Sendable, Hashable {
    public var rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let readOnly = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_RDONLY))
    public static let noSetUserID = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NOSUID))
    public static let noDevices = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NODEV))
    public static let noExecute = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NOEXEC))
    /// Access times are never updated.
    public static let noAccessTime = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NOATIME))
    /// Access times are always updated. Without either flag, they are updated when older than the last change or than a day.
    public static let strictAccessTime = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_STRICTATIME))
    public static let noDirectoryAccessTime = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NODIRATIME))
    /// Symbolic links are not followed (Linux 5.14).
    public static let noSymbolicLinks = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_NOSYMFOLLOW))
    /// Set-user-ID and set-group-ID bits, file capabilities and device nodes have no effect.
    public static let withoutPrivileges: MountAttributes = [.noSetUserID, .noDevices]
    /// All bits of the access-time setting. The kernel requires that they are cleared before one is set.
    static let accessTime = MountAttributes(rawValue: UInt64(CL_MOUNT_ATTR_ATIME_MASK))
}

/// A file system that is being configured (fsopen, fsconfig, fsmount; Linux 5.2).
public struct FileSystemContext: ~Copyable, Sendable {
    private let descriptor: FileDescriptor
    private let type: StaticString

    /// - Throws: ENODEV if the kernel lacks this type of file system, EPERM if the process may not mount.
    public init(_ type: StaticString) throws(SystemError) {
        let result = Kernel.call(.mount, -1) { type.withCString { cl_fsopen($0) } }
        guard let raw = Int32(exactly: result), raw >= 0 else {
            throw SystemError(operation: "fsopen", path: ByteString(type.description), errno: Errno(result: result))
        }
        self.type = type
        descriptor = FileDescriptor(owning: raw)
    }

    public borrowing func set(_ key: StaticString, _ value: ByteString) throws(SystemError) {
        try check(key) { raw, name in
            value.bytes.withUnsafeBytes { cl_fsconfig_string(raw, name, $0.baseAddress, $0.count) }
        }
    }

    /// Sets a parameter to an open file, by the number of a descriptor that stays open during the call.
    public borrowing func set(_ key: StaticString, descriptor file: Int32) throws(SystemError) {
        try check(key) { raw, name in cl_fsconfig_fd(raw, name, file) }
    }

    public borrowing func setFlag(_ key: StaticString) throws(SystemError) {
        try check(key) { raw, name in cl_fsconfig_flag(raw, name) }
    }

    private borrowing func check(_ key: StaticString, _ body: (Int32, UnsafePointer<CChar>) -> Int) throws(SystemError) {
        let raw = descriptor.raw
        let name = UnsafeRawBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount)
        let result = key.withCString { key in Kernel.call(.mount, raw, name) { body(raw, key) } }
        if result < 0 { throw SystemError(operation: "set \(key) of", path: ByteString(type.description), errno: Errno(result: result)) }
    }

    /// Creates the file system from the parameters that were set.
    public borrowing func create() throws(SystemError) {
        let result = Kernel.call(.mount, descriptor.raw) { cl_fsconfig_create(descriptor.raw) }
        if result < 0 { throw SystemError(operation: "create", path: ByteString(type.description), errno: Errno(result: result)) }
    }

    /// Returns a detached mount of the file system. It is unmounted when the descriptor is closed, unless it was attached.
    public borrowing func mount(_ attributes: MountAttributes) throws(SystemError) -> FileDescriptor {
        let result = Kernel.call(.mount, descriptor.raw) { cl_fsmount(descriptor.raw, attributes.rawValue) }
        guard let raw = Int32(exactly: result), raw >= 0 else {
            throw SystemError(operation: "fsmount", path: ByteString(type.description), errno: Errno(result: result))
        }
        return FileDescriptor(owning: raw)
    }

    /// The kernel's messages about the last failure in one line, separated by `; `; empty if there are none.
    public borrowing func messages() -> String {
        var lines: [String] = []
        while lines.count < 16 {
            let line = withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer -> String? in
                let length = cl_read(descriptor.raw, buffer.baseAddress, buffer.count)
                guard length > 0, length <= buffer.count else { return nil }
                // A message has the form "e message", "w message" or "i message".
                let text = buffer[..<length].filter { $0 != UInt8(ascii: "\n") }
                return ByteString(text.count > 2 && text[1] == UInt8(ascii: " ") ? Array(text.dropFirst(2)) : text).description
            }
            guard let line else { break }
            lines.append(line)
        }
        return lines.joined(separator: "; ")
    }
}

/// A loop device that is in use.
@frozen
public struct LoopDevice: ~Copyable, Sendable {
    public var descriptor: FileDescriptor
    /// `/dev/loopN`
    public var path: ByteString
}

extension FileDescriptor {
    /// Attaches this detached mount to an open directory.
    public borrowing func attachMount(to target: borrowing FileDescriptor) throws(SystemError) {
        let directory = target.raw
        let result = Kernel.call(.mount, directory, other: raw) { cl_move_mount(raw, directory, nil, 0) }
        guard result >= 0 else { throw SystemError("mount at", result, at: directory, nil) }
    }

    /// Attaches this detached mount to a path.
    public borrowing func attachMount(at path: ByteString) throws(SystemError) { try FileDescriptor.attachMount(raw, at: path) }

    /// A detached copy of the mount that this directory is on, with this directory as its root, and of all mounts below (open_tree(2) with
    /// `OPEN_TREE_CLONE`). What is mounted or unmounted at the originals later does not change the copy.
    public borrowing func copyMounts() throws(SystemError) -> FileDescriptor {
        let number = raw
        let result = Kernel.call(.mount, number) { cl_copy_mounts(number) }
        guard let copied = Int32(exactly: result), copied >= 0 else { throw SystemError("copy the mounts at", result, at: number, nil) }
        let copy = FileDescriptor(owning: copied)
        // Copies of shared mounts share their events: the end of the originals would be that of the copies.
        let privacy = Kernel.call(.mount, copied) { cl_make_mounts_private("/proc/self/fd/\(copied)", 1) }
        guard privacy >= 0 else { throw SystemError("make private the copy of the mounts at", privacy, at: number, nil) }
        return copy
    }

    /// Attaches a detached mount, by the number of its descriptor, to a path.
    public static func attachMount(_ raw: Int32, at path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.mount, cl_at_fdcwd, bytes, other: raw) { cl_move_mount(raw, cl_at_fdcwd, bytes.baseAddress, bytes.count) }
        }
        guard result >= 0 else { throw SystemError(operation: "mount at", path: path, errno: Errno(result: result)) }
    }

    /// Sets and clears attributes of the mount whose root this is. EINVAL if this is not a mount's root.
    public borrowing func changeMount(set: MountAttributes, clear: MountAttributes = []) throws(SystemError) {
        var clear = clear
        if !set.union(clear).isDisjoint(with: .accessTime) { clear.formUnion(.accessTime) }
        let result = Kernel.call(.mount, raw) { cl_mount_setattr(raw, 0, set.rawValue, clear.rawValue, -1) }
        guard result >= 0 else { throw SystemError("change mount", result, at: raw, nil) }
    }

    /// Maps the owners of files in this detached mount through a user namespace (idmapped mount, Linux 5.12).
    public borrowing func mapMountOwners(by userNamespace: borrowing FileDescriptor) throws(SystemError) {
        let namespace = userNamespace.raw
        let result = Kernel.call(.mount, raw, other: namespace) {
            cl_mount_setattr(raw, 0, UInt64(CL_MOUNT_ATTR_IDMAP), 0, namespace)
        }
        guard result >= 0 else { throw SystemError("map the owners of mount", result, at: raw, nil) }
    }

    /// The mount ID, as in mountinfo, of the mount through which the file was opened; nil if the kernel does not report it.
    public borrowing func mountID() throws(SystemError) -> UInt64? {
        let info = try FileDescriptor.open(ByteString("/proc/thread-self/fdinfo/\(raw)"), .readOnly).readAll(limit: 1 << 16)
        for line in info.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(whereSeparator: { $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") })
            if words.count == 2, words[0].elementsEqual("mnt_id".utf8) { return UInt64(String(decoding: words[1], as: UTF8.self)) }
        }
        return nil
    }

    /// The current path of a mount, seen from the process's root directory: directories above it may have been renamed. Nil if the kernel's
    /// table does not list the mount.
    public static func path(ofMount number: UInt64) throws(SystemError) -> ByteString? {
        let table = try FileDescriptor.open("/proc/thread-self/mountinfo", .readOnly).readAll(limit: 1 << 26)
        for line in table.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
            guard fields.count == 6, UInt64(String(decoding: fields[0], as: UTF8.self)) == number else { continue }
            return unescape(fields[4])
        }
        return nil
    }

    /// Decodes `\ooo`, the kernel's escape for bytes that would separate fields.
    package static func unescape(_ field: some Collection<UInt8>) -> ByteString {
        var bytes: [UInt8] = []
        var rest = Array(field)[...]
        while let first = rest.first {
            rest = rest.dropFirst()
            let digits = rest.prefix(3)
            if first == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ (0x30...0x37).contains($0) }) {
                let value = digits.reduce(0) { $0 * 8 + Int($1 - 0x30) }
                bytes.append(UInt8(truncatingIfNeeded: value))
                rest = rest.dropFirst(3)
            } else {
                bytes.append(first)
            }
        }
        return ByteString(bytes)
    }

    /// Detaches the topmost mount at `path`. If `lazily`, a mount that is in use is detached at once and released when its last user ends.
    public static func unmount(_ path: ByteString, lazily: Bool = false) throws(SystemError) {
        let flags = CL_UMOUNT_NOFOLLOW | (lazily ? CL_MNT_DETACH : 0)
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.unmount, cl_at_fdcwd, bytes) { cl_umount(cl_at_fdcwd, bytes.baseAddress, bytes.count, flags) }
        }
        guard result >= 0 else { throw SystemError(operation: "unmount", path: path, errno: Errno(result: result)) }
    }

    /// Like `unmount`, for a FUSE file system: one that is in use is tried again for half a second. The kernel holds the mount for a file that it
    /// reads directly (passthrough) until the server has answered the file's release, which is after close(2) has returned.
    public static func unmountServed(_ path: ByteString, lazily: Bool = false) throws(SystemError) {
        for _ in 0..<100 {
            do throws(SystemError) {
                return try unmount(path, lazily: lazily)
            } catch {
                guard error.errno == .busy else { throw error }
            }
            Host.sleep(milliseconds: 5)
        }
        try unmount(path, lazily: lazily)
    }

    /// Moves the calling thread into a new mount namespace with copies of all mounts. They are unmounted when the thread ends.
    ///
    /// - Returns: A directory whose mount does not propagate to others; nil if that is true of all mounts.
    package static func unshareMounts() throws(SystemError) -> ByteString? {
        var result = Kernel.call(.mount, -1) { cl_unshare_mounts() }
        guard result >= 0 else { throw SystemError(operation: "unshare mounts", errno: Errno(result: result)) }
        result = Kernel.call(.mount, -1) { cl_make_mounts_private("/", 1) }
        if result >= 0 { return nil }
        // In a chroot, the root directory may not be a mount's root. /proc always is one, and its directories are not needed meanwhile.
        guard Errno(result: result) == .invalidArgument else {
            throw SystemError(operation: "make mounts private", errno: Errno(result: result))
        }
        result = Kernel.call(.mount, -1) { cl_make_mounts_private("/proc", 0) }
        guard result >= 0 else { throw SystemError(operation: "make mount private", path: "/proc", errno: Errno(result: result)) }
        return "/proc/tty"
    }

    /// Moves the calling thread into the mount namespace of this file (`/proc/PID/ns/mnt`). EINVAL if the process has another thread.
    public borrowing func enterMounts() throws(SystemError) {
        let raw = raw
        let result = Kernel.call(.mount, raw) { cl_enter_mounts(raw) }
        guard result >= 0 else { throw SystemError("enter the mount namespace", result, at: raw, nil) }
    }

    /// Returns a read-only loop device for this file. The device is released when its last user ends: when the returned descriptor is
    /// closed and no mount uses the device.
    public borrowing func makeLoopDevice() throws(SystemError) -> LoopDevice {
        let control = try FileDescriptor.open("/dev/loop-control", .readWrite)
        let raw = raw
        // Other processes take devices at the same time. EBUSY means a lost race, so ask for the next free device.
        var last = SystemError(operation: "find a free loop device", errno: .busy)
        for _ in 0..<64 {
            let number = Kernel.call(.loopDevice, control.raw) { cl_loop_free(control.raw) }
            guard number >= 0 else { throw SystemError("find a free loop device with", number, at: control.raw, nil) }
            let path = ByteString("/dev/loop\(number)")
            let device = try FileDescriptor.open(path, .readOnly)
            let result = Kernel.call(.loopDevice, device.raw, other: raw) { cl_loop_configure(device.raw, raw) }
            if result >= 0 { return LoopDevice(descriptor: device, path: path) }
            last = SystemError(operation: "configure loop device", path: path, errno: Errno(result: result))
            if last.errno != .busy { break }
        }
        throw last
    }
}

extension StaticString {
    /// Passes the bytes of a static string, which end with an uncounted NUL.
    fileprivate func withCString<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
        UnsafeRawPointer(utf8Start).withMemoryRebound(to: CChar.self, capacity: utf8CodeUnitCount + 1, body)
    }
}
