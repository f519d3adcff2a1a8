internal import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsMounting

// Mounts that other programs serve with FUSE, and whose source names no image. The process that serves a mount tells of the repository: it has the
// directories open, and perhaps the image.
extension Repository {
    func addServed(
        _ mount: ImageMount, _ use: ImageUse, _ servers: FuseServers, to uses: inout ImageUses
    ) throws(RepositoryError) {
        var (processes, isCertain) = servers.processes(of: mount)
        // If the kernel does not tell what a process serves, those that have a lease serve what it names.
        if !isCertain { processes.removeAll { uses.leaseProcesses.contains($0) } }
        if processes.isEmpty {
            if try isName(mount.image) { uses.add(UnidentifiedMount(use, source: mount.source, isOwn: false)) }
            return
        }
        let directories = try ownDirectories()
        for process in processes {
            let files = ProcessFile.all(of: process)
            var ids: [ObjectID] = []
            for file in files { if let id = try object(of: file) { ids.append(id) } }
            guard !ids.isEmpty || files.contains(where: { $0.isAny(of: directories) }) else { continue }
            let use = ImageUse(.mounted, use.location, process: Host.process(process) ?? use.process)
            // It may have the image open, or just one of its files.
            let images = ids.filter { (try? imageObjects($0)) != nil }
            for id in images { uses.add(id, use) }
            let foreign = files.filter { Self.isErofs($0) }
            for file in foreign where !ids.contains(where: { Self.identifier(inPath: file.path) == $0 }) {
                addForeignImage(file, use, to: &uses)
            }
            if images.isEmpty, foreign.isEmpty { uses.add(UnidentifiedMount(use, source: mount.source, isOwn: true)) }
        }
    }

    /// Whether the processes that serve a mount have other repositories open, and nothing of this one.
    func isOfAnotherRepository(_ mount: ImageMount, _ servers: FuseServers) throws(RepositoryError) -> Bool {
        let (processes, isCertain) = servers.processes(of: mount)
        guard isCertain else { return false }
        let directories = try ownDirectories()
        for process in processes {
            let files = ProcessFile.all(of: process)
            if files.contains(where: { $0.isAny(of: directories) }) { return false }
            for file in files where try object(of: file) != nil { return false }
            guard files.contains(where: \.isRepository) else { return false }
        }
        return true
    }

    private func ownDirectories() throws(RepositoryError) -> [FileStatus] {
        var directories: [FileStatus] = []
        for path in [".", Layout.objects, Layout.images, Layout.streams] {
            if let status = try status(at: path) { directories.append(status) }
        }
        return directories
    }

    /// Whether a mount's name is one of this repository's. A repository's own programs may write a name below `images/refs` with `refs/` before it.
    func isName(_ name: ByteString?) throws(RepositoryError) -> Bool {
        guard var name else { return false }
        let prefix: ByteString = "refs/"
        if name.hasPrefix(prefix) { name = ByteString(name.bytes.dropFirst(prefix.count)) }
        if try imageReferences().contains(where: { $0.name == name }) { return true }
        // Programs store tags as one path component.
        let component = Self.component(encoding: name)
        return try streamReferences().contains { $0.name == name || Layout.baseName($0.name) == component }
    }

    /// The object of this repository that a file is; nil if it is another file.
    private func object(of file: ProcessFile) throws(RepositoryError) -> ObjectID? {
        guard let id = Self.identifier(inPath: file.path), id.algorithm == algorithm,
            let status = try status(at: Layout.objectPath(id)), status.inode == file.inode,
            file.device.map({ $0 == status.device }) ?? true
        else { return nil }
        return id
    }

    private static func isErofs(_ file: ProcessFile) -> Bool {
        guard let file = try? FileDescriptor.open(file.visible, [.readOnly, .nonBlocking]), (try? file.status().kind) == .regular else {
            return false
        }
        var magic = [UInt8](repeating: 0, count: 4)
        let count = (try? magic.withUnsafeMutableBytes { try file.preadFully(into: $0, at: 1024) }) ?? 0
        return count == 4 && magic == [0xe2, 0xe1, 0xf5, 0xe0]
    }

    /// An image that is a file somewhere else, and is served with this repository's objects.
    private func addForeignImage(_ file: ProcessFile, _ use: ImageUse, to uses: inout ImageUses) {
        do {
            uses.objects.formUnion(try objects(ofImage: file.path, at: file.visible))
        } catch {
            uses.unknown.append((use.location, .unreadableImage(use, file.path, error)))
        }
    }
}

extension ProcessFile {
    fileprivate func isAny(of others: [FileStatus]) -> Bool { others.contains { $0.device == device && $0.inode == inode } }

    /// Whether it is the directory of a repository, or of a repository's objects.
    fileprivate var isRepository: Bool {
        guard let directory = try? FileDescriptor.open(visible, [.pathOnly, .directory]) else { return false }
        func has(_ path: ByteString, _ kind: FileKind) -> Bool { (try? directory.status(at: path, follow: false))?.kind == kind }
        return (has("meta.json", .regular) && has("objects", .directory))
            || (path.hasSuffix("/objects") && has("../meta.json", .regular))
    }
}
