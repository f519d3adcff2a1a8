public import ComposefsBytes
public import ComposefsLinuxSystem

/// A mount of a composefs image, or of an EROFS file system that may be one, in any mount namespace.
public struct ImageMount: Sendable, Hashable {
    /// The mount's source in the kernel's tables: `composefs:` and an image, the image's file, or a loop device.
    public var source: ByteString
    /// The device that the kernel gave the file system, `major:minor`, as its directories' st_dev.
    public var device: ByteString
    /// The file system's type.
    public var type: ByteString
    /// The mount point, seen from the root directory of `process`.
    public var directory: ByteString
    /// A process in the mount's namespace.
    public var process: Int32
    /// Whether the mount is in another namespace than the caller's.
    public var isElsewhere: Bool
    /// The lower directories of an overlay as they were given, seen from the root directory of `process`.
    public var layers: [ByteString]

    /// The part of the source after `composefs:`, an image ID or a name; nil if the source has no such prefix.
    public var image: ByteString? {
        let prefix = MountOptions.source(ofImage: "")
        return source.hasPrefix(prefix) ? ByteString(source.bytes.dropFirst(prefix.count)) : nil
    }

    /// Whether a process serves the image (FUSE).
    public var isServed: Bool { type == "fuse" || type.hasPrefix("fuse.") }

    /// Converts a path in the mount's namespace to one that the caller can open.
    public func visible(_ path: ByteString) -> ByteString { ByteString("/proc/\(process)/root") + path }
}

/// The mounts of images and of EROFS file systems, whichever tool mounted them, in all mount namespaces whose processes the caller may
/// inspect; root may inspect all. Namespaces without a process are not covered.
///
/// - Throws: `SystemError` if /proc is not mounted or cannot be listed, because there is no other source of this information.
public func imageMounts() throws(SystemError) -> [ImageMount] {
    guard Host.hasProc else { throw SystemError("open", "/proc/self/mountinfo", .noEntry) }
    let processes = try FileDescriptor.open("/proc", [.readOnly, .directory])
    let own = try processes.readLink(at: "self/ns/mnt")
    // If this process's own table cannot be read, the result would be incomplete.
    _ = try processes.open(at: "self/mountinfo", .readOnly).readAll(limit: 1 << 26)
    var mounts: [ImageMount] = []
    var seen: Set<ByteString> = []
    for entry in try processes.entries() {
        guard let process = Int32(String(decoding: entry.name.bytes, as: UTF8.self)) else { continue }
        // Most processes share a namespace and a root directory, so the table of each pair is read once. A process in a chroot does not see
        // mounts outside.
        let space = try? processes.readLink(at: entry.name + "/ns/mnt")
        let root = try? processes.readLink(at: entry.name + "/root")
        let view = space.flatMap { space in root.map { space + ":" + $0 } }
        if let view, seen.contains(view) { continue }
        // A process may end at any time. Another one in its namespace is then read instead.
        guard let table = try? processes.open(at: entry.name + "/mountinfo", .readOnly), let bytes = try? table.readAll(limit: 1 << 26),
            !bytes.isEmpty
        else { continue }
        if let view { seen.insert(view) }
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            guard let mount = MountEntry(line: line), mount.isImage || mount.type == "erofs" || mount.source.hasPrefix("composefs:") else {
                continue
            }
            mounts.append(
                ImageMount(
                    source: mount.source, device: mount.device, type: mount.type, directory: mount.target, process: process,
                    isElsewhere: space != own,
                    layers: mount.layers))
        }
    }
    return mounts
}

/// The names of mounted images: the part after `composefs:` in the sources of mounts; see `imageMounts`.
///
/// - Throws: `SystemError` if /proc is not mounted or cannot be listed.
public func mountedImages() throws(SystemError) -> Set<ByteString> { Set(try imageMounts().compactMap(\.image)) }

/// The backing files of the machine's loop devices, by device name (`loop0`). The path of a removed file ends with ` (deleted)`. Empty if
/// /sys is not mounted.
public func loopDeviceFiles() -> [(device: ByteString, file: ByteString)] {
    guard let blocks = try? FileDescriptor.open("/sys/block", [.readOnly, .directory]), let entries = try? blocks.entries() else {
        return []
    }
    return entries.compactMap { entry in
        guard entry.name.hasPrefix("loop"), let file = try? blocks.open(at: entry.name + "/loop/backing_file", .readOnly),
            var path = try? file.readAll(limit: 1 << 16)
        else { return nil }
        while path.last == UInt8(ascii: "\n") { path.removeLast() }
        return (entry.name, ByteString(path))
    }
}
