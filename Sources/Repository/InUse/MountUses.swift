internal import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsMounting

// Images that are mounted. The kernel keeps no table of the files that EROFS reads; what tells of them is the source that each tool gives its
// mount: `composefs:` and the identifier (cfsoci, cfsctl), the path of the image's file (mount.composefs), a loop device.
extension Repository {
    func addMounts(_ mounts: [ImageMount], to uses: inout ImageUses) throws(RepositoryError) {
        let loops = Dictionary(loopDeviceFiles(), uniquingKeysWith: { first, _ in first })
        let objects = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objects) }
        // A mount that other namespaces show at the same place, having inherited it, is told once, and of the caller's namespace first.
        for mount in mounts.filter({ !$0.isElsewhere }) + mounts.filter(\.isElsewhere) {
            let use = ImageUse(.mounted, mount.directory, process: mount.isElsewhere ? Host.process(mount.process) : nil)
            if let id = identifier(of: mount, loops) {
                // A server's lease says more.
                let isKnown = (uses.images[id] ?? []).contains { $0.kind == .mounted && $0.location == mount.directory }
                if !isKnown { uses.add(id, use) }
            } else if uses.leasedDevices.contains(mount.device) {
                continue
            } else if mount.image != nil, mount.isServed || Self.shows(objects, mount) {
                uses.anyImage.append(use)
            } else if Self.shows(objects, mount) {
                addForeignImage(mount, use, to: &uses)
            }
        }
        // A loop device outlives the name of a mount whose EROFS part is attached nowhere.
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

    /// The object that a path like `…/objects/XX/REST` or `…/images/HEX` names.
    private static func identifier(inPath path: ByteString) -> ObjectID? {
        let removed: ByteString = " (deleted)"
        let parts = (path.hasSuffix(removed) ? ByteString(path.bytes.dropLast(removed.count)) : path).bytes
            .split(separator: UInt8(ascii: "/"))
        guard let last = parts.last else { return nil }
        if let id = ObjectID(hex: last) { return id }
        return parts.count > 1 ? ObjectID(hex: Array(parts[parts.count - 2]) + Array(last)) : nil
    }

    /// Whether one of a mount's layers is this repository's directory of objects.
    private static func shows(_ objects: FileStatus?, _ mount: ImageMount) -> Bool {
        guard let objects else { return false }
        return mount.layers.contains { layer in
            guard let directory = try? FileDescriptor.open(mount.visible(layer), [.pathOnly, .directory]),
                let status = try? directory.status()
            else { return false }
            return status.device == objects.device && status.inode == objects.inode
        }
    }

    /// A mount over this repository's objects of an image that is a file somewhere else: what the file names is in use.
    private func addForeignImage(_ mount: ImageMount, _ use: ImageUse, to uses: inout ImageUses) {
        do {
            guard mount.source.bytes.first == UInt8(ascii: "/") else { throw SystemError("open", mount.source, .noEntry) }
            let file = try FileDescriptor.open(mount.visible(mount.source), [.readOnly, .nonBlocking])
            guard [.regular, .blockDevice].contains(try file.status().kind) else {
                throw SystemError("open", mount.source, .invalidArgument)
            }
            let image = try ErofsImage(try file.readAll(limit: ErofsImage.maximumSize), algorithm: algorithm)
            uses.objects.formUnion(image.objectReferences())
        } catch {
            uses.unknown.append(
                (mount.directory, "this mount shows the repository's objects, and its image, \(mount.source), cannot be read: \(error)"))
        }
    }
}
