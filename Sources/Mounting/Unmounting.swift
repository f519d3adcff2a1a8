public import ComposefsBytes
internal import ComposefsLinuxSystem

/// Unmounts the image at a directory. The path may contain symbolic links. If `lazily`, an image that is in use is detached at once and
/// released with its last user.
///
/// An image that another tool mounted in two parts, an EROFS mount and an overlay of it, is unmounted completely.
///
/// - Throws: `MountError.notMounted`, `.notAnImage`, `.busy`, `.noRights`, `.system`.
public func unmount(_ target: ByteString, lazily: Bool = false) throws(MountError) {
    let found: MountEntry?
    do throws(SystemError) {
        found = try mount(at: target)
    } catch {
        throw .system(error)
    }
    guard let found else { throw .notMounted(target) }
    guard found.isImage else { throw .notAnImage(target, type: found.type, source: found.source) }
    do throws(SystemError) {
        if found.isServed {
            try FileDescriptor.unmountServed(found.target, lazily: lazily)
        } else {
            try FileDescriptor.unmount(found.target, lazily: lazily)
        }
    } catch {
        throw MountError(error) {
            switch $0.errno {
            case .invalidArgument: .notMounted(target)
            case .busy: .busy(target)
            default: .system($0)
            }
        }
    }
    unmountLeftOver(found.layers, lazily: lazily)
}

/// The user who mounted the FUSE file system at a directory, and so may unmount it through `fusermount3`; nil if another file system or
/// none is mounted there.
public func fuseMountOwner(at target: ByteString) -> UInt32? {
    guard let found = try? mount(at: target), found.type == "fuse" || found.type.hasPrefix("fuse."),
        let user = found.options.first(where: { $0.hasPrefix("user_id=") })
    else { return nil }
    return UInt32(String(decoding: user.bytes.dropFirst(8), as: UTF8.self))
}

/// The mount whose root is at the path; nil if the path is not a mount's root.
private func mount(at target: ByteString) throws(SystemError) -> MountEntry? {
    let id: UInt64
    let path: ByteString
    do {
        let directory = try FileDescriptor.open(target, .pathOnly)
        guard let number = try directory.mountID() else { throw SystemError("look for the mount at", target, .noEntry) }
        id = number
        path = directory.kernelPath
    }
    return try MountEntry.all().first { $0.id == id && $0.target == path }
}

/// Unmounts EROFS mounts that only served as layers of the unmounted overlay. Errors are ignored: the overlay itself is unmounted.
private func unmountLeftOver(_ layers: [ByteString], lazily: Bool) {
    guard !layers.isEmpty, let mounts = try? MountEntry.all() else { return }
    let inUse = Set(mounts.flatMap(\.layers))
    for layer in layers where !inUse.contains(layer) {
        guard mounts.last(where: { $0.target == layer })?.type == "erofs" else { continue }
        try? FileDescriptor.unmount(layer, lazily: lazily)
    }
}
