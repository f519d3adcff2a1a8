import ComposefsBootFormats
import ComposefsBytes
public import ComposefsFileTree
public import ComposefsImageStore
import ComposefsRepository

extension ImageStore {
    /// What an image can boot: Type 1 entries, unified kernel images and addons, kernels of `/usr/lib/modules`, and kernels of `/boot`. Each kind
    /// in the order of the paths.
    ///
    /// What is incomplete or damaged is in the list, with its fault.
    ///
    /// - Parameter tree: the image's tree before the transform for booting, which empties `/boot`.
    /// - Throws: `RepositoryError` if the store is damaged.
    public func bootResources(in tree: FileTree) throws -> [BootResource] {
        try BootResourceFinder(tree, repository).all()
    }
}

private struct BootResourceFinder {
    /// Entries have a few lines.
    private static let entryLimit = 1 << 20
    private static let releaseFiles: [ByteString] = ["/etc/os-release", "/usr/lib/os-release"]
    private static let modules: ByteString = "/usr/lib/modules"
    private static let boot: ByteString = "/boot"

    let tree: FileTree
    let repository: Repository
    /// Everything below `/boot`.
    let belowBoot: Set<FileTree.InodeID>
    /// The name and version of the operating system.
    let label: ByteString?

    init(_ tree: FileTree, _ repository: Repository) throws {
        self.tree = tree
        self.repository = repository
        var below: Set<FileTree.InodeID> = []
        var pending = tree.lookup(path: Self.boot).map { [$0] } ?? []
        while let next = pending.popLast() {
            below.insert(next)
            pending += tree.entries(of: next).map(tree.inode(of:))
        }
        belowBoot = below
        var label: ByteString?
        for path in Self.releaseFiles where label == nil {
            guard let inode = tree.resolve(path, followingLast: true), let content = tree.content(of: inode), let size = content.fileSize,
                size <= UInt64(Self.entryLimit), let file = try StoredFile(content, in: repository)
            else { continue }
            label = OSRelease(parsing: try file.all()).label
        }
        self.label = label
    }

    func all() throws -> [BootResource] {
        var found: [BootResource] = []
        for (path, inode) in children(of: "/boot/loader/entries") where path.hasSuffix(".conf") { found.append(try entry(path, inode)) }
        for (path, inode) in files(below: "/boot/EFI/Linux") { try addProgram(path, inode, .addon, to: &found) }
        for (path, inode) in files(below: "/boot/loader/addons") { try addProgram(path, inode, .globalAddon, to: &found) }
        let versions = children(of: Self.modules).filter { tree.isDirectory($0.inode) }.map(\.path)
        for version in versions { for (path, inode) in files(below: version) { try addProgram(path, inode, .addon, to: &found) } }
        for version in versions {
            guard let inode = tree.resolve(version + "/vmlinuz", followingLast: true) else { continue }
            let name = ByteString(version.bytes.dropFirst(Self.modules.count + 1))
            found.append(kernel(.kernel, name, version + "/vmlinuz", inode, version + "/initramfs.img"))
        }
        let prefix: ByteString = "/boot/vmlinuz-"
        for (path, _) in children(of: Self.boot) where path.hasPrefix(prefix) && path.count > prefix.count {
            guard let inode = tree.resolve(path, followingLast: true) else { continue }
            let name = ByteString(path.bytes.dropFirst(prefix.count))
            found.append(kernel(.bootKernel, name, path, inode, "/boot/initrd.img-" + name))
        }
        return found
    }

    /// The entries of a directory of the image, which may be reached through symbolic links, in the order of their names.
    private func children(of path: ByteString) -> [(path: ByteString, inode: FileTree.InodeID)] {
        guard let directory = tree.resolve(path, followingLast: true) else { return [] }
        return tree.sortedEntries(of: directory).map { (path + "/" + tree.name(of: $0), tree.inode(of: $0)) }
    }

    /// Everything below a directory that is no directory, in the order of the paths. Symbolic links below it are not followed.
    private func files(below path: ByteString) -> [(path: ByteString, inode: FileTree.InodeID)] {
        var found: [(path: ByteString, inode: FileTree.InodeID)] = []
        // A list instead of recursion: the image decides how deep it is.
        var pending = Array(children(of: path).reversed())
        while let next = pending.popLast() {
            if tree.isDirectory(next.inode) {
                pending += tree.sortedEntries(of: next.inode).reversed().map { (next.path + "/" + tree.name(of: $0), tree.inode(of: $0)) }
            } else {
                found.append(next)
            }
        }
        return found
    }

    private func name(_ path: ByteString, without suffix: ByteString) -> ByteString {
        let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? 0
        return ByteString(path.bytes[slash...].dropLast(suffix.count))
    }

    // MARK: Type 1

    private func entry(_ path: ByteString, _ inode: FileTree.InodeID) throws -> BootResource {
        let name = LoaderEntryName(fileName: name(path, without: ""))?.name ?? name(path, without: ".conf")
        var resource = BootResource(kind: .entry, path: path, name: name, files: [], isInBootImage: false)
        let target = tree.isDirectory(inode) ? inode : tree.resolve(path, followingLast: true)
        guard let target, let content = tree.content(of: target), let size = content.fileSize else {
            resource.fault = target == nil ? .missingFile(path) : .notRegularFile(path)
            return resource
        }
        guard size <= UInt64(Self.entryLimit) else {
            resource.fault = .tooLarge(size: size, limit: Self.entryLimit)
            return resource
        }
        guard let file = try StoredFile(content, in: repository) else { preconditionFailure("a regular file has content") }
        let entry = LoaderEntry(parsing: try file.all())
        resource.entry = entry
        resource.title = entry["title"]
        resource.version = entry["version"]
        resource.options = entry.options
        if entry["linux"] == nil, entry["efi"] == nil, entry["uki"] == nil { resource.fault = .noKernel }
        for (key, value) in entry.keyedFiles { add(key, value, to: &resource) }
        return resource
    }

    /// Adds a file that an entry names: by its path in the image, or on the partition that is `/boot`.
    private func add(_ key: ByteString, _ value: ByteString, to resource: inout BootResource) {
        let path = value.hasPrefix("/") ? value : "/" + value
        guard let inode = tree.resolve(path, followingLast: true) ?? tree.resolve(Self.boot + path, followingLast: true) else {
            resource.fault = resource.fault ?? .missingFile(value)
            return
        }
        add(key, value, inode, to: &resource)
    }

    private func add(_ key: ByteString, _ path: ByteString, _ inode: FileTree.InodeID, to resource: inout BootResource) {
        guard let content = tree.content(of: inode), let size = content.fileSize else {
            resource.fault = resource.fault ?? .notRegularFile(path)
            return
        }
        resource.files.append(BootFile(key: key, path: path, content: content, size: size))
        if belowBoot.contains(inode) { resource.isInBootImage = false }
    }

    // MARK: Unified kernel images

    private func addProgram(
        _ path: ByteString, _ inode: FileTree.InodeID, _ addon: BootResource.Kind, to found: inout [BootResource]
    ) throws {
        guard path.hasSuffix(".efi") else { return }
        let suffix: ByteString = ".addon.efi"
        let isAddon = path.hasSuffix(suffix)
        // What else lies among the addons is none of them.
        guard isAddon || addon == .addon else { return }
        let name = isAddon ? name(path, without: suffix) : LoaderEntryName(fileName: name(path, without: ""), suffix: ".efi")?.name
        var resource = BootResource(
            kind: isAddon ? addon : .unified, path: path, name: name ?? self.name(path, without: ".efi"), files: [], isInBootImage: true)
        if let target = tree.resolve(path, followingLast: true) {
            add("efi", path, target, to: &resource)
        } else {
            resource.fault = .missingFile(path)
        }
        if let content = resource.files.first?.content, let file = try StoredFile(content, in: repository) {
            do {
                let image = try UnifiedKernelImage(file)
                resource.options = try image.commandLine(in: file)
                resource.title = try image.label(in: file)
                resource.version = try image.text(".uname", in: file)
                if !isAddon, image.kind != .kernel { resource.fault = .executable(.noSection(".linux")) }
            } catch let error as ExecutableError {
                resource.fault = .executable(error)
            }
        }
        found.append(resource)
    }

    // MARK: Kernels

    private func kernel(
        _ kind: BootResource.Kind, _ version: ByteString, _ path: ByteString, _ inode: FileTree.InodeID, _ ramDisk: ByteString
    ) -> BootResource {
        var resource = BootResource(
            kind: kind, path: path, name: version, title: label, version: version,
            entry: LoaderEntry(["linux " + path, "initrd " + ramDisk]),
            files: [], isInBootImage: true)
        add("linux", path, inode, to: &resource)
        guard let disk = tree.resolve(ramDisk, followingLast: true) else {
            resource.fault = resource.fault ?? .noInitialRamDisk(ramDisk)
            return resource
        }
        add("initrd", ramDisk, disk, to: &resource)
        return resource
    }
}
