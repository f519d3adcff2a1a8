package import ComposefsBytes
package import ComposefsLinuxSystem

// What a root file system has beside its image: directories that can be written to, on a disk or in memory.

/// Returns a detached, writable overlay of a directory that is attached somewhere, such as `/etc` of an image that is mounted.
///
/// - Parameters:
///   - lower: the directory, open.
///   - upper: receives changes. Its attributes are those of the overlay's root.
///   - work: an empty directory on the same file system, for use by the kernel. Both must be attached, too.
///   - source: the mount's source in the kernel's tables.
package func mountWritable(
    over lower: borrowing FileDescriptor, upper: borrowing FileDescriptor, work: borrowing FileDescriptor, source: ByteString
) throws(MountError) -> FileDescriptor {
    let layers = Layers(lower: lower.raw, upper: upper.raw, work: work.raw)
    var failure = MountError.noFileSystem("overlay")
    for way in LayerWay.allCases {
        do throws(MountError) {
            return try mountWritable(layers, way, source)
        } catch {
            guard case .overlay = error else { throw error }
            failure = error
        }
    }
    throw failure
}

/// The ways to name the layers, the newest first.
private enum LayerWay: CaseIterable {
    /// With descriptors (Linux 6.13): the kernel's table of mounts then shows the directories.
    case descriptors
    /// `lowerdir+` (6.8) with paths of descriptors.
    case paths
    /// `lowerdir` with one.
    case path
}

/// The numbers of the directories' descriptors.
private struct Layers {
    var lower: Int32
    var upper: Int32
    var work: Int32
}

private func descriptorPath(_ descriptor: Int32) -> ByteString { ByteString("/proc/self/fd/\(descriptor)") }

private func mountWritable(_ layers: Layers, _ way: LayerWay, _ source: ByteString) throws(MountError) -> FileDescriptor {
    let context = try makeContext("overlay")
    do throws(SystemError) {
        try context.set("source", source)
        // A file in the upper directory has its content, whatever happens to the image below: an update reads the directory without it.
        try context.set("metacopy", "off")
        switch way {
        case .descriptors:
            try context.set("lowerdir+", descriptor: layers.lower)
            try context.set("upperdir", descriptor: layers.upper)
            try context.set("workdir", descriptor: layers.work)
        case .paths, .path:
            try context.set(way == .paths ? "lowerdir+" : "lowerdir", descriptorPath(layers.lower))
            try context.set("upperdir", descriptorPath(layers.upper))
            try context.set("workdir", descriptorPath(layers.work))
        }
        try context.create()
        return try context.mount([])
    } catch {
        let messages = context.messages()
        throw MountError(error) { .overlay($0, kernel: messages) }
    }
}

/// Returns a detached mount of an empty file system in memory, with mode 0755.
package func mountMemory(source: ByteString) throws(MountError) -> FileDescriptor {
    let context = try makeContext("tmpfs")
    do throws(SystemError) {
        try context.set("source", source)
        try context.set("mode", "0755")
        try context.create()
        return try context.mount([])
    } catch {
        throw MountError(error) { .system($0) }
    }
}

/// Makes the upper directory of an overlay, with the attributes of the directory that it covers.
///
/// - Parameters:
///   - lower: the directory, open for reading.
///   - name: the new directory. One that exists stays as it is.
package func makeUpper(
    for lower: borrowing FileDescriptor, at name: ByteString, in directory: borrowing FileDescriptor
) throws(SystemError) {
    guard try directory.makeDirectoryIfMissing(at: name, mode: 0o755) else { return }
    try adoptRoot(of: lower, as: directory.procPath + "/" + name)
}
