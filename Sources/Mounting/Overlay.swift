internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsLinuxSystem

/// The ways to specify the layers of an overlay, the newest first.
enum LayerSyntax: CaseIterable {
    /// `lowerdir+` and `datadir+` with descriptors (Linux 6.13) of detached mounts (6.15).
    case descriptors
    /// `lowerdir+` and `datadir+` with paths of detached mounts.
    case paths
    /// `lowerdir+` and `datadir+` with paths (6.8) of attached mounts.
    case pathsOfAttached
    /// `lowerdir=IMAGE::OBJECTS` (6.5) with paths of attached mounts.
    case joinedPathsOfAttached

    static let forDetached: [LayerSyntax] = [.descriptors, .paths]
    static let forAttached: [LayerSyntax] = [.pathsOfAttached, .joinedPathsOfAttached]
}

/// The numbers of the layers' descriptors, which are borrowed and passed to another thread.
private struct Layers: Sendable {
    var image: Int32
    var objects: [Int32]
    var upper: Int32?
    var work: Int32?
}

/// Returns a detached overlay of the image over the objects and, if there is one, below the upper directory.
///
/// - Parameter ways: The ways to try.
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

/// A mount, or the reason for a failure, so that equivalent ways can be tried in turn.
private enum Attempt: ~Copyable {
    case mount(FileDescriptor)
    case failure(MountError)
}

/// Tries the ways in turn. A failure that does not depend on the way, such as a missing privilege, is thrown at once.
private func firstOverlay(
    _ ways: [LayerSyntax], _ layers: Layers, _ requireVerity: Bool, _ options: MountOptions
) throws(MountError) -> Attempt {
    var failure = MountError.noFileSystem("overlay")
    // With metacopy, a file in the upper directory can refer to the content of a lower file, so a forged one could show a file of the image
    // under another name. It is enabled only if the kernel has data-only layers in no other way (before 6.16). Without it, a file whose
    // owner or mode changes is copied up completely, so that the upper directory does not depend on the image's content.
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
        // Distributions may build overlayfs with both disabled.
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

/// Older kernels accept only directories of mounts that are attached in the caller's mount namespace. So that no other process sees the
/// attached image, and nothing remains of it in any case, this happens in a namespace that exists only as long as one thread.
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
    // The paths are read before the thread leaves the namespace: seen from a new one, an old descriptor has a path outside of the root.
    let paths: [ByteString]
    do throws(SystemError) {
        paths = try layers.objects.map { (raw) throws(SystemError) in try FileDescriptor.duplicate(of: raw).kernelPath }
    } catch {
        throw .system(error)
    }
    let mountPoint: ByteString?
    do throws(SystemError) {
        mountPoint = try FileDescriptor.unshareMounts()
    } catch {
        throw MountError(error) { .overlay($0, kernel: "") }
    }
    // Older descriptors still belong to the old namespace. All are opened again before the image covers the target.
    var objects = Directories()
    for (old, path) in zip(layers.objects, paths) { objects.add(owning: try reopen(old, path)) }
    let upper = try openDirectory(options.upperDirectory)
    let work = try openDirectory(options.workDirectory)
    do throws(SystemError) {
        try FileDescriptor.attachMount(layers.image, at: mountPoint ?? target)
    } catch {
        throw MountError(error) { .overlay($0, kernel: "") }
    }
    // The image's descriptor refers to its mount wherever it is attached. A path would not work: "." would lead below the mount.
    let own = Layers(image: layers.image, objects: objects.raws, upper: upper.raw, work: work.raw)
    switch try firstOverlay(ways, own, requireVerity, options) {
    case .mount(let mount): return mount
    // Every kernel with the feature supports the last way, so its error is about the layers themselves.
    case .failure(let failure): throw failure
    }
}

/// Opens, by name and in this thread's namespace, the directory of a descriptor from another namespace.
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

/// A descriptor, or none if there is no path.
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
