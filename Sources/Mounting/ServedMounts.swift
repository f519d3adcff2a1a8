public import ComposefsBytes
internal import ComposefsLinuxSystem

/// The FUSE mount of an image.
public struct ServedMount: Sendable, Hashable {
    public var directory: ByteString
    /// The image's ID; nil if the mount's source does not contain it.
    public var image: ByteString?
}

/// The FUSE mount of an image that contains a path; nil if there is none. The file system is not accessed, because its server may have
/// ended.
public func servedMount(holding path: ByteString) -> ServedMount? {
    var absolute = path
    if path.bytes.first != UInt8(ascii: "/") {
        guard let current = try? FileDescriptor.currentDirectory.readLink(at: "/proc/self/cwd") else { return nil }
        absolute = current == "/" ? current + path : current + "/" + path
    }
    while absolute.count > 1, absolute.bytes.last == UInt8(ascii: "/") { absolute.bytes.removeLast() }
    guard let mounts = try? MountEntry.all() else { return nil }
    let holding = mounts.filter { mount in
        (mount.type == "fuse" || mount.type.hasPrefix("fuse.")) && mount.isImage
            && (absolute == mount.target || absolute.hasPrefix(mount.target + "/"))
    }
    let prefix = MountOptions.source(ofImage: "")
    return holding.max { $0.target.count < $1.target.count }.map { mount in
        ServedMount(
            directory: mount.target,
            image: mount.source.hasPrefix(prefix) ? ByteString(mount.source.bytes.dropFirst(prefix.count)) : nil)
    }
}
