// Mounting: images on the kernel's EROFS and overlayfs, and the features of the host.
//
// `mountImage` mounts an image's file and directories of objects that the caller has opened and verified. The module does not know the
// repository, OCI or FUSE images; those are the tasks of Repository, ImageStore and Fuse.
//
// - `mountImage`, `mountImageFile` and `unmount` attach and detach an image; `mountImageDetached` leaves attaching to another process.
//   `MountOptions` are their options.
// - Helper: `HelperInvocation` is what mount(8)'s helper `mount.composefs` was asked to do, with `HelperOptions`.
// - `mountedImages` and `servedMount` read the kernel's mount tables.
// - `probeFeatures` tries what the host supports; `HostFeatures` is the result.
// - `MountError` is the reason for a failure.

public import ComposefsBytes
public import ComposefsLinuxSystem

/// Mounts a composefs image: an EROFS file system with all metadata, combined by overlayfs with the directories of objects that have the
/// content of its files.
///
/// Nothing is attached before everything is ready, and unattached mounts end with their descriptors: a failure, or the end of the process
/// at any moment, leaves nothing behind. The kernel's features are found by trying them, because distributions backport features.
///
/// - Parameters:
///   - image: The image's file, open for reading, which the caller has verified. This file is mounted even if its name refers to another
///     one by now.
///   - objects: The repository's `objects` directory, open.
///   - verity: Whether the kernel checks each file. It must match the repository: an insecure one has objects without fs-verity.
///   - target: An existing directory.
/// - Returns: Whether the kernel checks each file.
@discardableResult
public func mountImage(
    _ image: borrowing FileDescriptor, objects: borrowing FileDescriptor, verity: VerityChecking, at target: ByteString,
    options: MountOptions = MountOptions()
) throws(MountError) -> Bool {
    try options.check()
    let targetDirectory = try openTarget(target)
    let prepared = try prepareMount(image, objects, verity, target, options)
    do throws(SystemError) {
        try prepared.mount.attachMount(to: targetDirectory)
    } catch {
        throw MountError(error) { .system($0) }
    }
    return prepared.requiresVerity
}

/// Mounts a composefs image without attaching it: for another process, which gets the descriptor and attaches it in its own mount namespace
/// (move_mount(2)). The mount ends with the last descriptor unless it is attached.
///
/// Parameters and errors are those of `mountImage`.
public func mountImageDetached(
    _ image: borrowing FileDescriptor, objects: borrowing FileDescriptor, verity: VerityChecking, options: MountOptions = MountOptions()
) throws(MountError) -> FileDescriptor {
    try options.check()
    // What an older kernel needs for a moment is covered only in the namespace of one thread; nothing here needs that directory.
    return try prepareMount(image, objects, verity, "/proc/tty", options).keepMount()
}

/// A mount that is ready to be attached.
private struct PreparedMount: ~Copyable {
    var mount: FileDescriptor
    /// Whether the kernel checks each file.
    var requiresVerity: Bool

    consuming func keepMount() -> FileDescriptor { mount }
}

private func prepareMount(
    _ image: borrowing FileDescriptor, _ objects: borrowing FileDescriptor, _ verity: VerityChecking, _ target: ByteString,
    _ options: MountOptions
) throws(MountError) -> PreparedMount {
    var lower = Directories()
    do throws(SystemError) {
        guard try objects.status().kind == .directory else { throw SystemError("open", objects.kernelPath, .notDirectory) }
        try lower.add(objects)
        for path in options.moreObjects { try lower.add(path) }
    } catch {
        throw .system(error)
    }
    var requiresVerity = verity == .required
    if verity != .none {
        let unsupported = try directoryWithoutVerity(lower)
        if verity == .required, let unsupported { throw .verityUnsupported(objects: unsupported) }
        requiresVerity = unsupported == nil
    }
    let overlay: FileDescriptor
    do throws(MountError) {
        overlay = try mountDetached(image, lower, requiresVerity, target, options)
    } catch {
        guard verity == .ifSupported, requiresVerity, error == .overlayWithoutVerity else { throw error }
        requiresVerity = false
        overlay = try mountDetached(image, lower, false, target, options)
    }
    return PreparedMount(mount: overlay, requiresVerity: requiresVerity)
}

/// Changes the attributes of a mount, as `mount -o remount` does.
///
/// - Throws: `MountError.notMounted` if the directory is not a mount's root.
public func changeMount(at target: ByteString, set: MountAttributes, clear: MountAttributes) throws(MountError) {
    do throws(SystemError) {
        try FileDescriptor.open(target, [.pathOnly, .directory]).changeMount(set: set, clear: clear)
    } catch {
        throw MountError(error) { $0.errno == .invalidArgument ? .notMounted(target) : .system($0) }
    }
}

private func openTarget(_ path: ByteString) throws(MountError) -> FileDescriptor {
    do throws(SystemError) {
        let directory = try FileDescriptor.open(path, [.pathOnly, .directory])
        // The root of a dead FUSE file system can be opened with O_PATH too, so ask for its status.
        _ = try directory.status()
        return directory
    } catch {
        throw error.errno == .notConnected ? .notServed(path) : .system(error)
    }
}

/// Open directories.
struct Directories: ~Copyable {
    private(set) var raws: [Int32] = []

    deinit { for raw in raws { _ = FileDescriptor(owning: raw) } }

    mutating func add(_ directory: borrowing FileDescriptor) throws(SystemError) { raws.append(try directory.duplicate().release()) }

    mutating func add(_ path: ByteString) throws(SystemError) {
        raws.append(try FileDescriptor.open(path, [.readOnly, .directory]).release())
    }

    mutating func add(owning directory: consuming FileDescriptor) { raws.append(directory.release()) }
}

/// On a kernel without fs-verity, overlayfs accepts `verity=require`, but then every open of a file whose content is an object fails with
/// EIO.
private func directoryWithoutVerity(_ directories: borrowing Directories) throws(MountError) -> ByteString? {
    for raw in directories.raws {
        do throws(SystemError) {
            // A directory never has fs-verity. What matters is whether the answer is "not enabled" or "not supported".
            let directory = try FileDescriptor.duplicate(of: raw)
            do throws(SystemError) {
                _ = try directory.measureVerity()
            } catch {
                guard error.isUnsupported else { throw error }
                return directory.kernelPath
            }
        } catch {
            throw .system(error)
        }
    }
    return nil
}

private func mountDetached(
    _ image: borrowing FileDescriptor, _ objects: borrowing Directories, _ requireVerity: Bool, _ target: ByteString,
    _ options: MountOptions
) throws(MountError) -> FileDescriptor {
    let failure: MountError
    do throws(MountError) {
        return try mountDetached(from: image.procPath, objects, requireVerity, target, options)
    } catch {
        switch error {
        // Kernels before 6.12 need a block device. Newer ones do too if the image's file system requires it (tmpfs).
        case .image(let system, _) where system.errno == .notBlockDevice: break
        // The kernel limits the stacking of file systems. A block device starts again at depth 0.
        case .overlay: break
        default: throw error
        }
        failure = error
    }
    let isRefused = if case .image = failure { true } else { false }
    let loop: LoopDevice
    do throws(SystemError) {
        loop = try image.makeLoopDevice()
    } catch {
        throw isRefused ? MountError(error) { .noLoopDevice($0) } : failure
    }
    do throws(MountError) {
        // From here on, the mount holds the loop device, which is released with the last user.
        return try mountDetached(from: loop.path, objects, requireVerity, target, options)
    } catch {
        throw isRefused ? error : failure
    }
}

private func mountDetached(
    from source: ByteString, _ objects: borrowing Directories, _ requireVerity: Bool, _ target: ByteString, _ options: MountOptions
) throws(MountError) -> FileDescriptor {
    let erofs = try mountErofs(from: source)
    if let path = options.idmap { try mapOwners(erofs, path) }
    if let upper = options.upperDirectory {
        do throws(SystemError) {
            try adoptRoot(of: erofs, as: upper)
        } catch {
            throw .system(error)
        }
    }
    do throws(MountError) {
        return try mountOverlay(erofs, objects, requireVerity, target, options)
    } catch {
        guard case .overlay(let system, _) = error, system.errno == .invalidArgument else { throw error }
        throw misplaced(options) ?? error
    }
}

/// Finds errors in the upper and the work directory, which the kernel reports only in its log.
private func misplaced(_ options: MountOptions) -> MountError? {
    guard let upper = options.upperDirectory, let work = options.workDirectory,
        let one = try? FileDescriptor.currentDirectory.status(at: upper, follow: true),
        let two = try? FileDescriptor.currentDirectory.status(at: work, follow: true)
    else { return nil }
    if one.device != two.device {
        return .options(.otherFileSystem(work: work, upper: upper))
    }
    return one.inode == two.inode ? .options(.workIsUpper(work)) : nil
}

private func mapOwners(_ mount: borrowing FileDescriptor, _ path: ByteString) throws(MountError) {
    let namespace: FileDescriptor
    do throws(SystemError) {
        namespace = try FileDescriptor.open(path, .readOnly)
    } catch {
        throw .system(error)
    }
    do throws(SystemError) {
        try mount.mapMountOwners(by: namespace)
    } catch {
        throw .ownerMap(SystemError("map owners by", path, error.errno))
    }
}

/// Returns a detached mount of the image alone.
func mountErofs(from source: ByteString) throws(MountError) -> FileDescriptor {
    let context = try makeContext("erofs")
    do throws(SystemError) {
        try context.setFlag("ro")
        try context.set("source", source)
        try context.create()
        return try context.mount(.readOnly)
    } catch {
        let messages = context.messages()
        throw MountError(error) { .image($0, kernel: messages) }
    }
}

func makeContext(_ type: StaticString) throws(MountError) -> FileSystemContext {
    do throws(SystemError) {
        return try FileSystemContext(type)
    } catch {
        throw MountError(error) { $0.errno == .noDevice ? .noFileSystem(type.description) : .system($0) }
    }
}
