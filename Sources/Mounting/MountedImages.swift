public import ComposefsBytes
public import ComposefsLinuxSystem

/// A mount that shows a composefs image, or an EROFS file system that may be one, in whatever mount namespace.
public struct ImageMount: Sendable, Hashable {
    /// What the kernel names as its source: `composefs:` and an image, the image's file, or a loop device.
    public var source: ByteString
    /// The file system's type.
    public var type: ByteString
    /// Where it is mounted, seen from the root directory of `process`.
    public var directory: ByteString
    /// A process in the mount's namespace.
    public var process: Int32
    /// Whether that is another namespace than the caller's.
    public var isElsewhere: Bool
    /// The directories that overlayfs joins, as they were named, seen as `directory` is.
    public var layers: [ByteString]

    /// What stands behind `composefs:` in the source: an image's identifier, or a name; nil when there is no such prefix.
    public var image: ByteString? {
        let prefix = MountOptions.source(ofImage: "")
        return source.hasPrefix(prefix) ? ByteString(source.bytes.dropFirst(prefix.count)) : nil
    }

    /// Whether a process serves it (FUSE).
    public var isServed: Bool { type == "fuse" || type.hasPrefix("fuse.") }

    /// A path that was named in the mount's namespace, for the caller.
    public func visible(_ path: ByteString) -> ByteString { ByteString("/proc/\(process)/root") + path }
}

/// The mounts of images and of EROFS file systems, whoever made them, in all mount namespaces whose processes the caller may look at; root sees
/// all. A namespace that no process is in is not seen.
///
/// - Throws: when /proc is not mounted or cannot be listed: nothing else tells.
public func imageMounts() throws(SystemError) -> [ImageMount] {
    guard Host.hasProc else { throw SystemError("open", "/proc/self/mountinfo", .noEntry) }
    let processes = try FileDescriptor.open("/proc", [.readOnly, .directory])
    let own = try processes.readLink(at: "self/ns/mnt")
    // One that cannot be read tells nothing of what is mounted here.
    _ = try processes.open(at: "self/mountinfo", .readOnly).readAll(limit: 1 << 26)
    var mounts: [ImageMount] = []
    var seen: Set<ByteString> = []
    for entry in try processes.entries() {
        guard let process = Int32(String(decoding: entry.name.bytes, as: UTF8.self)) else { continue }
        // Most processes share a namespace and a root directory: that table is read once. A process in a chroot is not shown what is mounted outside.
        let space = try? processes.readLink(at: entry.name + "/ns/mnt")
        let root = try? processes.readLink(at: entry.name + "/root")
        let view = space.flatMap { space in root.map { space + ":" + $0 } }
        if let view, seen.contains(view) { continue }
        // A process may end between two looks; another one in its namespace is looked at then.
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
                    source: mount.source, type: mount.type, directory: mount.target, process: process, isElsewhere: space != own,
                    layers: mount.layers))
        }
    }
    return mounts
}

/// The names of images that are mounted: what stands behind `composefs:` in the sources of mounts; see `imageMounts`.
///
/// - Throws: when /proc is not mounted or cannot be listed.
public func mountedImages() throws(SystemError) -> Set<ByteString> { Set(try imageMounts().compactMap(\.image)) }

/// The files behind the machine's loop devices, by the devices' names (`loop0`); those whose files were removed have ` (deleted)` behind the path.
/// Empty when /sys is not mounted.
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
