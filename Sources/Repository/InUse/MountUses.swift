internal import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsMounting

// Images that are mounted. The kernel keeps no table of the files that EROFS reads. The source that a tool gives its mount identifies the image:
// `composefs:` and the image ID (cfsoci, cfsctl), the path of the image's file (mount.composefs), or a loop device.
extension Repository {
    func addMounts(_ mounts: [ImageMount], to uses: inout ImageUses) throws(RepositoryError) {
        let loops = Dictionary(loopDeviceFiles(), uniquingKeysWith: { first, _ in first })
        let objects = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objects) }
        var servers: FuseServers?
        // A mount that other namespaces inherited at the same mount point is reported once, first that of the caller's namespace.
        for mount in mounts.filter({ !$0.isElsewhere }) + mounts.filter(\.isElsewhere) {
            let use = ImageUse(.mounted, mount.directory, process: mount.isElsewhere ? Host.process(mount.process) : nil)
            let ids = identifiers(of: mount, among: mounts, loops)
            for id in ids {
                // The lease of a server has more information.
                let isKnown = (uses.images[id] ?? []).contains { $0.kind == .mounted && $0.location == mount.directory }
                if isKnown { continue }
                // Another repository may have the same image. Only such a mount is worth the look at every process.
                if mount.isServed, try status(at: Layout.objectPath(id)) != nil {
                    if servers == nil { servers = try system { () throws(SystemError) in try FuseServers() } }
                    if let servers, try isOfAnotherRepository(mount, servers) { continue }
                }
                uses.add(id, use)
            }
            if !ids.isEmpty || uses.leasedDevices.contains(mount.device) { continue }
            if mount.isServed {
                if servers == nil { servers = try system { () throws(SystemError) in try FuseServers() } }
                if let servers { try addServed(mount, use, servers, to: &uses) }
                continue
            }
            switch Self.shows(objects, mount) {
            case true?:
                if mount.image != nil {
                    uses.add(UnidentifiedMount(use, source: mount.source, isOwn: true))
                } else {
                    addForeignImage(mount, use, to: &uses)
                }
            case nil: if try isName(mount.image) { uses.add(UnidentifiedMount(use, source: mount.source, isOwn: false)) }
            case false?: break
            }
        }
        // A loop device shows the image of a mount with an EROFS part that is not attached.
        for (device, file) in loops {
            if let id = Self.identifier(inPath: file) { if uses.images[id] == nil { uses.add(id, ImageUse(.mounted, "/dev/" + device)) } }
        }
    }

    private func identifier(of mount: ImageMount, _ loops: [ByteString: ByteString]) -> ObjectID? {
        if let name = mount.image { return ObjectID(hex: name.bytes) }
        let device: ByteString = "/dev/"
        if mount.source.hasPrefix(device), let file = loops[ByteString(mount.source.bytes.dropFirst(device.count))] {
            return Self.identifier(inPath: file)
        }
        return Self.identifier(inPath: mount.source)
    }

    /// The images of a mount: by its own source, or by that of an EROFS mount that is one of its layers.
    private func identifiers(of mount: ImageMount, among mounts: [ImageMount], _ loops: [ByteString: ByteString]) -> [ObjectID] {
        if let id = identifier(of: mount, loops) { return [id] }
        let layers = Set(mount.layers)
        let below = mounts.filter { $0.type == "erofs" && $0.process == mount.process && layers.contains($0.directory) }
        return below.compactMap { identifier(of: $0, loops) }
    }

    /// The object that a path like `…/objects/XX/REST` or `…/images/HEX` names.
    static func identifier(inPath path: ByteString) -> ObjectID? {
        let removed: ByteString = " (deleted)"
        let parts = (path.hasSuffix(removed) ? ByteString(path.bytes.dropLast(removed.count)) : path).bytes
            .split(separator: UInt8(ascii: "/"))
        guard let last = parts.last else { return nil }
        if let id = ObjectID(hex: last) { return id }
        return parts.count > 1 ? ObjectID(hex: Array(parts[parts.count - 2]) + Array(last)) : nil
    }

    /// Whether one of a mount's layers is this repository's directory of objects; nil if a layer cannot be found, and so may be.
    private static func shows(_ objects: FileStatus?, _ mount: ImageMount) -> Bool? {
        guard let objects else { return false }
        var isComplete = true
        for layer in mount.layers {
            // A descriptor of the process that mounted it means another file in every other process.
            guard !layer.hasPrefix("/proc/"), let directory = try? FileDescriptor.open(mount.visible(layer), [.pathOnly, .directory]),
                let status = try? directory.status()
            else {
                isComplete = false
                continue
            }
            if status.device == objects.device, status.inode == objects.inode { return true }
        }
        return isComplete ? false : nil
    }

    /// Adds the objects of an image outside of the repository that is mounted over this repository's objects.
    private func addForeignImage(_ mount: ImageMount, _ use: ImageUse, to uses: inout ImageUses) {
        do {
            guard mount.source.bytes.first == UInt8(ascii: "/") else { throw SystemError("open", mount.source, .noEntry) }
            uses.objects.formUnion(try objects(ofImage: mount.source, at: mount.visible(mount.source)))
        } catch {
            uses.unknown.append((mount.directory, .unreadableSource(mount.source, error)))
        }
    }

    /// The objects that an image outside of the repository needs.
    ///
    /// - Parameters:
    ///   - path: the path as it was found, for errors.
    ///   - visible: the path by which this process can open the file.
    func objects(ofImage path: ByteString, at visible: ByteString) throws -> [ObjectID] {
        let file = try FileDescriptor.open(visible, [.readOnly, .nonBlocking])
        guard [.regular, .blockDevice].contains(try file.status().kind) else { throw SystemError("open", path, .invalidArgument) }
        return try ErofsImage(try file.readAll(limit: ErofsImage.maximumSize), algorithm: algorithm).objectReferences()
    }
}
