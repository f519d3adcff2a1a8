public import ComposefsBytes
public import ComposefsLinuxSystem

/// Mounts a composefs image: an EROFS file system with all metadata, joined by overlayfs with the directories of objects that have the
/// content of its files.
///
/// Nothing is attached before everything is ready, and what is not attached vanishes with its descriptors: a failure, or the end of the
/// process at any moment, leaves nothing behind. What the kernel can do is found by trying, since distributions carry features back.
///
/// - Parameters:
///   - image: The image's file, open for reading, which the caller has verified. This very file is mounted, whatever its name leads to by
///     then.
///   - objects: The repository's `objects` directory, open.
///   - verity: Whether the kernel checks each file. Must be what the repository is: an insecure one has objects without fs-verity.
///   - target: An existing directory.
/// - Returns: Whether the kernel checks each file.
@discardableResult
public func mountImage(
    _ image: borrowing FileDescriptor, objects: borrowing FileDescriptor, verity: VerityChecking, at target: ByteString,
    options: MountOptions = MountOptions()
) throws(MountError) -> Bool {
    try options.check()
    let targetDirectory = try openTarget(target)
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
    do throws(SystemError) {
        try overlay.attachMount(to: targetDirectory)
    } catch {
        throw MountError(error) { .system($0) }
    }
    return requiresVerity
}

/// Changes the attributes of a mount: what `mount -o remount` does of it.
///
/// - Throws: `MountError.notMounted` where the directory is no mount's root.
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
        // A handle can be had on the root of a dead FUSE file system too.
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

/// On a kernel without fs-verity overlayfs accepts `verity=require`, and then every open of a file with content in the objects is EIO.
private func directoryWithoutVerity(_ directories: borrowing Directories) throws(MountError) -> ByteString? {
    for raw in directories.raws {
        do throws(SystemError) {
            // A directory never has fs-verity; what matters is whether the answer is "no" or "what is that".
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
        // Kernels before 6.12 want a block device, newer ones too where the image's file system cannot do without (tmpfs).
        case .image(let system, _) where system.errno == .notBlockDevice: break
        // File systems stacked upon each other are counted, and a block device starts at nought.
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
        // The mount holds the loop device from here on; it frees itself with the last of both.
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

/// What is wrong with the upper and the work directory, which the kernel tells only in its log.
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

/// A detached mount of the image alone.
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
