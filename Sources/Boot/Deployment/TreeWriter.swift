import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// Writes a tree to a directory, with owners, modes, extended attributes and times.
struct TreeWriter {
    let repository: Repository
    /// Contents that are not objects of the repository, by their digests: the directory that holds them, and the names below it.
    var local: [ObjectID: (path: ByteString, names: [ByteString])] = [:]

    init(_ repository: Repository) { self.repository = repository }

    /// Reads contents also from a directory of which `tree` is the tree.
    mutating func addContents(of tree: FileTree, at path: ByteString) {
        // A list instead of recursion: the directory decides how deep it is.
        var pending: [(inode: FileTree.InodeID, names: [ByteString])] = [(FileTree.root, [])]
        while let next = pending.popLast() {
            for entry in tree.entries(of: next.inode) {
                let inode = tree.inode(of: entry)
                let names = next.names + [tree.name(of: entry)]
                if tree.isDirectory(inode) {
                    pending.append((inode, names))
                } else if case .external(let id, _)? = tree.content(of: inode) {
                    local[id] = (path, names)
                }
            }
        }
    }

    /// Writes the entries of a directory of the tree, and gives `target` its metadata.
    func write(_ tree: FileTree, _ directory: FileTree.InodeID = FileTree.root, to target: borrowing FileDescriptor) throws {
        for entry in tree.sortedEntries(of: directory) {
            let (name, inode) = (tree.name(of: entry), tree.inode(of: entry))
            if tree.isDirectory(inode) {
                try target.makeDirectory(at: name, mode: 0o700)
                try write(tree, inode, to: try target.open(at: name, [.readOnly, .directory, .noFollow]))
            } else if let content = tree.content(of: inode) {
                try write(content, tree.metadata(of: inode), name, in: target)
            }
        }
        try Self.apply(tree.metadata(of: directory), to: target)
    }

    private func write(_ content: Content, _ metadata: Metadata, _ name: ByteString, in parent: borrowing FileDescriptor) throws {
        switch content {
        case .inline, .external, .externalWithoutVerity, .sparse:
            let file = try parent.open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: 0o600)
            try fill(file, content)
            try Self.apply(metadata, to: file)
        case .symbolicLink(let target):
            try parent.symlink(target: target, at: name)
            try Self.apply(metadata, to: name, in: parent, hasMode: false)
        case .fifo, .socket, .blockDevice, .characterDevice:
            try parent.makeNode(
                at: name, mode: UInt32(content.kind.modeBits) | UInt32(metadata.permissions), device: content.device)
            try Self.apply(metadata, to: name, in: parent, hasMode: true)
        }
    }

    private func fill(_ file: borrowing FileDescriptor, _ content: Content) throws {
        switch content {
        case .inline(let bytes): try file.writeAll(bytes.bytes)
        case .sparse(let size): try file.truncate(to: size)
        case .external(let id, _), .externalWithoutVerity(let id, _):
            if let found = local[id] { return try copy(id, from: found, to: file) }
            guard let source = try StoredFile(content, in: repository) else { preconditionFailure("an object is a regular file") }
            try source.forEachPart { try file.writeAll($0) }
        case .blockDevice, .characterDevice, .fifo, .socket, .symbolicLink: preconditionFailure("only a regular file has content")
        }
    }

    /// Copies a file that had this digest when it was found.
    private func copy(
        _ id: ObjectID, from place: (path: ByteString, names: [ByteString]), to file: borrowing FileDescriptor
    ) throws {
        let shown = place.names.reduce(place.path) { $0 + "/" + $1 }
        var at = try FileDescriptor.open(place.path, [.readOnly, .directory])
        for name in place.names.dropLast() { at = try at.open(at: name, [.readOnly, .directory, .noFollow]) }
        let opened = try at.open(at: place.names.last ?? ".", [.readOnly, .noFollow, .nonBlocking])
        guard try opened.status().kind == .regular else { throw BootError.etcChanged(shown) }
        var hasher = VerityHasher(id.algorithm)
        try StoredFile.object(try OpenFile(opened)).forEachPart {
            hasher.update($0)
            try file.writeAll($0)
        }
        guard hasher.finalize() == id else { throw BootError.etcChanged(shown) }
    }

    /// The owner first: a change of owner removes set-ID bits and file capabilities. The time last: all else changes it.
    private static func apply(_ metadata: Metadata, to file: borrowing FileDescriptor) throws(SystemError) {
        try file.changeOwner(uid: metadata.uid, gid: metadata.gid)
        try file.changeMode(UInt32(metadata.permissions))
        for attribute in metadata.extendedAttributes { try file.setExtendedAttribute(attribute.name, attribute.value) }
        try file.setTime(seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds)
    }

    private static func apply(
        _ metadata: Metadata, to name: ByteString, in parent: borrowing FileDescriptor, hasMode: Bool
    ) throws(SystemError) {
        try parent.changeOwner(at: name, uid: metadata.uid, gid: metadata.gid)
        if hasMode { try parent.changeMode(at: name, UInt32(metadata.permissions)) }
        for attribute in metadata.extendedAttributes { try parent.setExtendedAttribute(attribute.name, attribute.value, at: name) }
        try parent.setTime(at: name, seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds)
    }
}

extension Content {
    /// The device number of a device node, from Linux's `makedev`.
    fileprivate var device: DeviceNumber {
        switch self {
        case .blockDevice(let number), .characterDevice(let number):
            DeviceNumber(major: Content.majorAndMinor(ofDevice: number).major, minor: Content.majorAndMinor(ofDevice: number).minor)
        default: DeviceNumber(major: 0, minor: 0)
        }
    }
}
