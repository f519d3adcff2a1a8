internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsLinuxSystem

/// How the layers are told to overlayfs, the newest way first.
enum LayerSyntax: CaseIterable {
    /// `lowerdir+` and `datadir+` with descriptors (Linux 6.13), of detached mounts (6.15).
    case descriptors
    /// The same with paths, of detached mounts.
    case paths
    /// With paths (6.8), of mounts that are attached.
    case pathsOfAttached
    /// `lowerdir=IMAGE::OBJECTS` (6.5), of mounts that are attached.
    case joinedPathsOfAttached

    static let forDetached: [LayerSyntax] = [.descriptors, .paths]
    static let forAttached: [LayerSyntax] = [.pathsOfAttached, .joinedPathsOfAttached]
}

/// Descriptors of the directories that are joined, by number: they are borrowed, and cross to another thread.
private struct Layers: Sendable {
    var image: Int32
    var objects: [Int32]
    var upper: Int32?
    var work: Int32?
}

/// A detached overlay of the image over the objects, and below the upper directory if there is one.
///
/// - Parameter ways: Only these are tried.
func mountOverlay(
    _ erofs: borrowing FileDescriptor, _ objects: borrowing Directories, _ requireVerity: Bool, _ target: ByteString,
    _ options: MountOptions, ways: [LayerSyntax] = LayerSyntax.allCases
) throws(MountError) -> FileDescriptor {
    let upper = try openDirectory(options.upperDirectory)
    let work = try openDirectory(options.workDirectory)
    let layers = Layers(image: erofs.raw, objects: objects.raws, upper: upper.raw, work: work.raw)
    let attached = ways.filter(LayerSyntax.forAttached.contains)
    switch try firstOverlay(ways.filter(LayerSyntax.forDetached.contains), layers, requireVerity, options) {
    case .mount(let mount): return mount
    case .failure(let failure) where attached.isEmpty: throw failure
    case .failure: return try mountOverlayOfAttached(layers, attached, requireVerity, target, options)
    }
}

/// A mount, or why there is none: so that ways of saying the same can be tried one after the other.
private enum Attempt: ~Copyable {
    case mount(FileDescriptor)
    case failure(MountError)
}

/// Tries the ways in turn. What does not depend on the way, as missing rights, is thrown at once.
private func firstOverlay(
    _ ways: [LayerSyntax], _ layers: Layers, _ requireVerity: Bool, _ options: MountOptions
) throws(MountError) -> Attempt {
    var failure = MountError.noFileSystem("overlay")
    // A file of the upper directory that says "my content is that of the other file there" is followed only where the kernel has images
    // in no other way (before 6.16): whoever forges one makes a file of the image appear under another's name. Without, a file whose
    // owner or mode is changed is copied up whole, so that the upper directory does not depend on the image's content.
    let metacopies = layers.upper == nil ? ["on"] : ["off", "on"]
    for metacopy in metacopies {
        for syntax in ways {
            do throws(MountError) {
                return .mount(try mountOverlay(layers, syntax, metacopy: ByteString(metacopy), requireVerity, options))
            } catch {
                guard case .overlay = error else { throw error }
                failure = error
            }
        }
    }
    return .failure(failure)
}

private func mountOverlay(
    _ layers: Layers, _ syntax: LayerSyntax, metacopy: ByteString, _ requireVerity: Bool, _ options: MountOptions
) throws(MountError) -> FileDescriptor {
    let context = try makeContext("overlay")
    if requireVerity {
        do throws(SystemError) {
            try context.set("verity", "require")
        } catch {
            throw MountError(error) { _ in .overlayWithoutVerity }
        }
    }
    do throws(SystemError) {
        try context.set("source", options.kernelSource)
        // Distributions may build overlayfs with both off.
        try context.set("metacopy", metacopy)
        try context.set("redirect_dir", "on")
        switch syntax {
        case .descriptors:
            try context.set("lowerdir+", descriptor: layers.image)
            for objects in layers.objects { try context.set("datadir+", descriptor: objects) }
        case .paths, .pathsOfAttached:
            try context.set("lowerdir+", path(layers.image))
            for objects in layers.objects { try context.set("datadir+", path(objects)) }
        case .joinedPathsOfAttached:
            try context.set("lowerdir", layers.objects.reduce(path(layers.image)) { $0 + "::" + path($1) })
        }
        if let upper = layers.upper, let work = layers.work {
            switch syntax {
            case .descriptors:
                try context.set("upperdir", descriptor: upper)
                try context.set("workdir", descriptor: work)
            default:
                try context.set("upperdir", path(upper))
                try context.set("workdir", path(work))
            }
        }
        try context.create()
        return try context.mount(options.mountAttributes)
    } catch {
        let messages = context.messages()
        throw MountError(error) { .overlay($0, kernel: messages) }
    }
}

/// Older kernels take only directories of mounts that are attached in the caller's mount namespace. So that nobody sees the image
/// attached, and nothing is left of it whatever happens, this is done in a namespace that lives as long as one thread.
private func mountOverlayOfAttached(
    _ layers: Layers, _ ways: [LayerSyntax], _ requireVerity: Bool, _ target: ByteString, _ options: MountOptions
) throws(MountError) -> FileDescriptor {
    let result: Result<Int32, MountError>
    do throws(SystemError) {
        result = try blockingOnOwnThread { () -> Result<Int32, MountError> in
            do throws(MountError) {
                return .success(try mountOverlayInOwnNamespace(layers, ways, requireVerity, target, options).release())
            } catch {
                return .failure(error)
            }
        }
    } catch {
        throw .system(error)
    }
    return FileDescriptor(owning: try result.get())
}

private func mountOverlayInOwnNamespace(
    _ layers: Layers, _ ways: [LayerSyntax], _ requireVerity: Bool, _ target: ByteString, _ options: MountOptions
) throws(MountError) -> FileDescriptor {
    // Asked for now: seen from a new namespace, what an old descriptor stands for has a path outside of a chroot.
    let paths: [ByteString]
    do throws(SystemError) {
        paths = try layers.objects.map { (raw) throws(SystemError) in try FileDescriptor.duplicate(of: raw).kernelPath }
    } catch {
        throw .system(error)
    }
    let place: ByteString?
    do throws(SystemError) {
        place = try FileDescriptor.unshareMounts()
    } catch {
        throw MountError(error) { .overlay($0, kernel: "") }
    }
    // Descriptors from before still belong to the old namespace. All are opened anew before the image hides what is below the target.
    var objects = Directories()
    for (old, path) in zip(layers.objects, paths) { objects.add(owning: try reopen(old, path)) }
    let upper = try openDirectory(options.upperDirectory)
    let work = try openDirectory(options.workDirectory)
    do throws(SystemError) {
        try FileDescriptor.attachMount(layers.image, at: place ?? target)
    } catch {
        throw MountError(error) { .overlay($0, kernel: "") }
    }
    // The image's descriptor stands for the mount wherever it is attached. Its path would not do: of "." it leads below the mount.
    let own = Layers(image: layers.image, objects: objects.raws, upper: upper.raw, work: work.raw)
    switch try firstOverlay(ways, own, requireVerity, options) {
    case .mount(let mount): return mount
    // The last way is known to every kernel that can do it at all, so what it says is about the thing itself.
    case .failure(let failure): throw failure
    }
}

/// Opens by name, in this thread's namespace, the directory that a descriptor from another namespace stands for.
private func reopen(_ old: Int32, _ path: ByteString) throws(MountError) -> FileDescriptor {
    do throws(SystemError) {
        let before = try FileDescriptor.duplicate(of: old)
        let new = try FileDescriptor.open(path, [.pathOnly, .directory])
        let (wanted, found) = (try before.status(), try new.status())
        guard wanted.device == found.device, wanted.inode == found.inode else { throw SystemError("open", path, .noEntry) }
        return new
    } catch {
        throw .system(error)
    }
}

/// A descriptor, or none where there is no path.
private struct OptionalDirectory: ~Copyable {
    var descriptor: FileDescriptor?
    var raw: Int32?
}

private func openDirectory(_ path: ByteString?) throws(MountError) -> OptionalDirectory {
    guard let path else { return OptionalDirectory(descriptor: nil, raw: nil) }
    do throws(SystemError) {
        let directory = try FileDescriptor.open(path, [.pathOnly, .directory])
        let raw = directory.raw
        return OptionalDirectory(descriptor: directory, raw: raw)
    } catch {
        throw .system(error)
    }
}

private func path(_ descriptor: Int32) -> ByteString { ByteString("/proc/self/fd/\(descriptor)") }
