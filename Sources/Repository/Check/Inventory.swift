internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem

/// What is in a repository's directories, read once for garbage collection and fsck.
struct Inventory {
    /// An entry of `streams/` or `images/` that is a symbolic link.
    struct Link {
        var name: ByteString
        var target: ByteString
        /// The object that it leads to; nil if the target names none.
        var id: ObjectID?
    }

    /// Size in bytes of every object.
    var objects: [ObjectID: UInt64] = [:]
    /// Files and directories that are not part of a repository.
    var strays: [(path: ByteString, kind: FileKind)] = []
    /// Temporary files of interrupted or running operations.
    var temporaries: [ByteString] = []
    var streams: [Link] = []
    /// The streams that a named reference with their name means. Others have names that references may have by chance, such as `config`.
    var streamsByName: [ByteString: ObjectID] {
        let named = streams.filter { $0.name.hasPrefix("oci-") }
        return Dictionary(named.compactMap { link in link.id.map { (link.name, $0) } }, uniquingKeysWith: { first, _ in first })
    }
    var images: [Link] = []
    /// Files that were set aside because their content did not match their names.
    var setAside: [ByteString] = []
    /// First-level entries of `streams/` and `images/` that are not symbolic links.
    var notLinks: [ByteString] = []
    var streamReferences: [(path: ByteString, target: ByteString)] = []
    var imageReferences: [(path: ByteString, target: ByteString)] = []
    /// Other files with the name of a directory of the repository.
    var notDirectories: [(path: ByteString, kind: FileKind)] = []
    /// The directories of the first level that are missing.
    var missing: [ByteString] = []
    /// Entries below `refs/` that are neither directories nor links.
    var notReferences: [(path: ByteString, kind: FileKind)] = []

    /// - Parameter withObjects: also list the objects; the caller does it otherwise, and adds the strays among them.
    init(_ repository: borrowing Repository, withObjects: Bool = true) throws(RepositoryError) {
        // Other handles may be storing. They publish objects first, then streams and images, then references: read in the reverse order, everything
        // that is found leads to something that was there before.
        try readRoot(repository)
        streamReferences = try readReferences(repository, Layout.streams, Layout.streamReferences)
        imageReferences = try readReferences(repository, Layout.images, Layout.imageReferences)
        // A manifest's stream leads to its config's, and a config's to its image.
        streams = try readLinks(repository, Layout.streams)
        images = try readLinks(repository, Layout.images)
        try readObjects(repository, withObjects)
    }

    private mutating func readRoot(_ repository: borrowing Repository) throws(RepositoryError) {
        for entry in try repository.entries(of: ".") ?? [] {
            switch entry.name {
            case Layout.metadata, Layout.objects, Layout.streams, Layout.images: break
            // The file system's own directory.
            case "lost+found": break
            case Layout.leases: _ = try isDirectory(Layout.leases, repository)
            case Layout.staging:
                guard try isDirectory(Layout.staging, repository) else { continue }
                try repository.walkReferences(Layout.staging) { (path, _) throws(RepositoryError) in temporaries.append(path) }
            case Layout.damaged:
                guard try isDirectory(Layout.damaged, repository) else { continue }
                setAside = (try repository.entries(of: Layout.damaged) ?? []).map { Layout.damaged + "/" + $0.name }
            case let name where name.hasPrefix(Layout.symlinkPrefix): temporaries.append(name)
            default: strays.append((entry.name, try repository.kind(of: entry, at: entry.name)))
            }
        }
    }

    /// Whether a directory exists. A file of another type with its name is recorded.
    private mutating func isDirectory(_ path: ByteString, _ repository: borrowing Repository) throws(RepositoryError) -> Bool {
        guard let status = try repository.status(at: path) else { return false }
        if status.kind == .directory { return true }
        notDirectories.append((path, status.kind))
        return false
    }

    private mutating func readObjects(_ repository: borrowing Repository, _ withObjects: Bool) throws(RepositoryError) {
        guard try isDirectory(Layout.objects, repository) else { return }
        for entry in try repository.entries(of: Layout.objects) ?? [] {
            let path = Layout.objects + "/" + entry.name
            let kind = try repository.kind(of: entry, at: path)
            if entry.name.count == 2, Hex.decode(entry.name.bytes) != nil, kind == .directory { continue }
            if entry.name.hasPrefix(Layout.objectPrefix) { temporaries.append(path) } else { strays.append((path, kind)) }
        }
        guard withObjects else { return }
        try repository.forEachObject { (id, path, status) throws(RepositoryError) in
            if let id, status.kind == .regular { objects[id] = status.size } else { strays.append((path, status.kind)) }
        }
    }

    /// The entries of `streams/` or `images/`.
    private mutating func readLinks(_ repository: borrowing Repository, _ category: ByteString) throws(RepositoryError) -> [Link] {
        var links: [Link] = []
        if try repository.status(at: category) == nil { missing.append(category) }
        guard try isDirectory(category, repository) else { return [] }
        for entry in try repository.entries(of: category) ?? [] where entry.name != "refs" {
            let path = category + "/" + entry.name
            let kind = try repository.kind(of: entry, at: path)
            guard kind == .symbolicLink, let target = try repository.readLink(path) else {
                notLinks.append(path)
                continue
            }
            links.append(Link(name: entry.name, target: target, id: Layout.objectID(ofTarget: target, repository.algorithm)))
        }
        return links
    }

    private mutating func readReferences(
        _ repository: borrowing Repository, _ category: ByteString, _ references: ByteString
    ) throws(RepositoryError) -> [(path: ByteString, target: ByteString)] {
        var found: [(path: ByteString, target: ByteString)] = []
        // What has the category's place is noted with its entries.
        guard try repository.status(at: category)?.kind == .directory, try isDirectory(references, repository) else { return [] }
        try repository.walkReferences(references) { (path, kind) throws(RepositoryError) in
            // The lease keeps what its link keeps.
            if category == Layout.images, path.hasPrefix(Layout.leaseReferences + "/") { return }
            if kind == .symbolicLink {
                // Another process may have removed it meanwhile.
                if let target = try repository.readLink(path) { found.append((path, target)) }
            } else {
                notReferences.append((path, kind))
            }
        }
        return found.sorted { $0.path < $1.path }
    }
}

extension Repository {
    func status(at path: ByteString) throws(RepositoryError) -> FileStatus? {
        try system { () throws(SystemError) in try root.statusIfPresent(at: path) }
    }

    /// The kind of a directory's entry, also if the file system does not state it with the name.
    func kind(of entry: DirectoryEntry, at path: ByteString) throws(RepositoryError) -> FileKind {
        if entry.kind != .unknown { return entry.kind }
        return try system { () throws(SystemError) in try root.statusIfPresent(at: path)?.kind ?? .unknown }
    }
}
