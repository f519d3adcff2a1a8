public import Bytes
public import LinuxSystem

/// Mounts a composefs image: an EROFS file system with all metadata, joined by overlayfs with the directory of objects that has the
/// content of its files.
///
/// Nothing is attached before everything is ready, and what is not attached vanishes with its descriptors: a failure, or the end of the
/// process at any moment, leaves nothing behind. What the kernel can do is found by trying, since distributions carry features back.
///
/// - Parameters:
///   - image: The image's file, open for reading, which the caller has verified.
///   - objects: The repository's `objects` directory, open.
///   - requireVerity: Let the kernel check each file's fs-verity digest against the image when it is opened. Must be what the repository
///     is: an insecure one has objects without fs-verity.
///   - target: An existing directory.
public func mountImage(
    _ image: borrowing FileDescriptor, objects: borrowing FileDescriptor, requireVerity: Bool, at target: ByteString,
    options: MountOptions = MountOptions()
) throws(MountError) {
    try options.check()
    if requireVerity { try checkVerity(objects) }
    let targetDirectory: FileDescriptor
    do throws(SystemError) {
        guard try objects.status().kind == .directory else { throw SystemError("open", objects.kernelPath, .notDirectory) }
        targetDirectory = try FileDescriptor.open(target, [.pathOnly, .directory])
    } catch {
        throw .system(error)
    }
    let erofs = try mountErofs(image, options)
    let overlay = try mountOverlay(erofs, objects, requireVerity, target, options)
    do throws(SystemError) {
        try overlay.attachMount(to: targetDirectory)
    } catch {
        throw MountError(error) { .system($0) }
    }
}

/// Detaches the mount at a directory. With `lazily` even one in use, which then ends with its last user.
public func unmount(_ target: ByteString, lazily: Bool = false) throws(MountError) {
    do throws(SystemError) {
        try FileDescriptor.unmount(target, lazily: lazily)
    } catch {
        throw MountError(error) {
            switch $0.errno {
            case .invalidArgument: .notMounted(target)
            case .busy: .busy(target)
            default: .system($0)
            }
        }
    }
}

/// On a kernel without fs-verity overlayfs accepts `verity=require`, and then every open of a file with content in the objects is EIO.
private func checkVerity(_ objects: borrowing FileDescriptor) throws(MountError) {
    do throws(SystemError) {
        // A directory never has fs-verity; what matters is whether the answer is "no" or "what is that".
        _ = try objects.measureVerity()
    } catch {
        if error.isUnsupported { throw .verityUnsupported(objects: objects.kernelPath) }
        throw .system(error)
    }
}

/// A detached mount of the image alone.
private func mountErofs(_ image: borrowing FileDescriptor, _ options: MountOptions) throws(MountError) -> FileDescriptor {
    let mount = try mountErofs(image)
    guard let path = options.idmap else { return mount }
    let namespace: FileDescriptor
    do throws(SystemError) {
        namespace = try FileDescriptor.open(path, .readOnly)
    } catch {
        throw .system(error)
    }
    do throws(SystemError) {
        try mount.mapMountOwners(by: namespace)
    } catch {
        throw .ownerMap(error)
    }
    return mount
}

private func mountErofs(_ image: borrowing FileDescriptor) throws(MountError) -> FileDescriptor {
    do throws(MountError) {
        return try mountErofs(from: image.procPath)
    } catch {
        // Kernels before 6.12 want a block device, newer ones too where the image's file system cannot do without (tmpfs).
        guard case .image(let failure, _) = error, failure.errno == .notBlockDevice else { throw error }
    }
    let loop: LoopDevice
    do throws(SystemError) {
        loop = try image.makeLoopDevice()
    } catch {
        throw MountError(error) { .system($0) }
    }
    // The mount holds the loop device from here on; it frees itself with the last of both.
    return try mountErofs(from: loop.path)
}

private func mountErofs(from source: ByteString) throws(MountError) -> FileDescriptor {
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
