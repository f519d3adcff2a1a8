internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// Collects an image's references and the violations of its version's rules, while the image is checked.
struct ImageInspection: ImageVisitor {
    private let superblock: Superblock
    private var references: [ErofsImage.Reference] = []
    /// The total size of the extended attributes of all inodes in bytes.
    private(set) var attributeBytes = 0
    private var fault: ErofsError?
    private var hasACL = false
    private var objectDirectories = 0

    init(superblock: Superblock) { self.superblock = superblock }

    func sortedReferences() -> [ErofsImage.Reference] {
        var sorted: [ErofsImage.Reference] = []
        for reference in references.sorted(by: { ($0.id, $0.size ?? 0) < ($1.id, $1.size ?? 0) }) where reference != sorted.last {
            sorted.append(reference)
        }
        return sorted
    }

    /// The first violation, or one that only the whole image shows.
    func finding(root nid: UInt64) -> ErofsError? {
        if let fault { return fault }
        guard superblock.version.isFirstEpoch else { return nil }
        if objectDirectories != 256 {
            return .damaged(nid: nid, path: "/", "only \(objectDirectories) of the 256 names 00…ff that hide object directories exist")
        }
        if hasACL != superblock.hasACL {
            return .damaged(
                nid: nid, path: "/",
                hasACL
                    ? "the image has ACLs, but the header says that it has none"
                    : "the header says that the image has ACLs, but it has none")
        }
        return nil
    }

    private mutating func note(_ inode: ImageInode, _ attributes: borrowing ImageAttributes) {
        if attributes.hasACL { hasACL = true }
        attributeBytes += attributes.byteCount
        if let id = attributes.metacopy {
            references.append(ErofsImage.Reference(id: id, size: inode.size))
        } else if let id = attributes.redirect {
            references.append(ErofsImage.Reference(id: id, size: nil))
        }
    }

    mutating func directory(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<Void>?
    ) throws(Fault) {
        note(inode, attributes)
        if let entry, entry.parentIsRoot, Erofs.isObjectDirectory(entry.name) { objectDirectories += 1 }
    }

    mutating func leaf(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<Void>
    ) throws(Fault) {
        note(inode, attributes)
        try link((), entry)
        guard fault == nil else { return }
        var what: String?
        if superblock.version.isFirstEpoch {
            let used = inode.offset % Erofs.blockSize + (inode.tail.upperBound - inode.offset)
            if inode.kind == .symbolicLink, inode.layout == .inline, used > Erofs.blockSize {
                what = "the target of symlink '\(ByteString(entry.name))' crosses a block, which kernels before 6.12 refuse"
            } else if inode.kind == .characterDevice, inode.value == 0, !entry.parentIsRoot {
                what = "whiteout '\(ByteString(entry.name))' below the root is not escaped"
            }
        } else if inode.isEscapedWhiteout(attributes) {
            what = "whiteout '\(ByteString(entry.name))' is escaped, which version 2 does not allow"
        }
        if let what { fault = .damaged(nid: inode.nid, path: nil, what) }
    }

    mutating func link(_ leaf: Void, _ entry: VisitedEntry<Void>) throws(Fault) {
        if entry.parentIsRoot, Erofs.isObjectDirectory(entry.name) { objectDirectories += 1 }
    }

    func endDirectory(_ directory: Void, holdsEscapedWhiteout: Bool) {}
}

/// Builds the tree that an image was made from.
struct ImageTreeBuilder: ImageVisitor {
    private(set) var tree = FileTree(root: Metadata(permissions: 0))
    private let version: ErofsVersion
    /// Attributes of the shared table, so that their bytes are stored once.
    private var shared: [Int: ExtendedAttribute?] = [:]

    private var attributeBytes = 0
    private let attributeLimit: Int

    init(version: ErofsVersion, imageSize: Int) {
        self.version = version
        attributeLimit = Erofs.attributeLimit(imageSize: imageSize)
    }

    mutating func directory(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<FileTree.InodeID>?
    ) throws(Fault) -> FileTree.InodeID {
        let metadata = try metadata(of: inode, attributes, source)
        guard let entry else {
            tree.setMetadata(of: FileTree.root, to: metadata)
            return FileTree.root
        }
        do throws(FileTreeError) {
            return try tree.addDirectory(ByteString(entry.name), in: entry.parent, metadata)
        } catch {
            throw Fault(error.description)
        }
    }

    mutating func leaf(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<FileTree.InodeID>
    ) throws(Fault) -> FileTree.InodeID {
        if entry.parentIsRoot, version.isFirstEpoch, inode.kind == .characterDevice, inode.value == 0, Erofs.isObjectDirectory(entry.name) {
            // The format added this entry. It has one link, so the handle is never used.
            return FileTree.root
        }
        var metadata = try metadata(of: inode, attributes, source)
        let content: Content
        switch inode.kind {
        case .regular where version.isFirstEpoch && inode.isEscapedWhiteout(attributes):
            metadata.remove([OverlayAttribute.whiteout, OverlayAttribute.userWhiteout])
            content = .characterDevice(0)
        case .regular where inode.layout == .chunked:
            if let id = attributes.metacopy {
                content = .external(id, size: inode.size)
            } else if let id = attributes.redirect {
                content = .externalWithoutVerity(id, size: inode.size)
            } else {
                content = .sparse(size: inode.size)
            }
        case .regular: content = .inline(try source.data(of: inode))
        case .symbolicLink: content = .symbolicLink(try source.data(of: inode))
        case .characterDevice: content = .characterDevice(UInt64(inode.value))
        case .blockDevice: content = .blockDevice(UInt64(inode.value))
        case .fifo: content = .fifo
        case .socket: content = .socket
        case .directory: throw Fault("a directory is not a leaf")
        }
        do throws(FileTreeError) {
            return try tree.addLeaf(ByteString(entry.name), in: entry.parent, metadata, content)
        } catch {
            throw Fault(error.description)
        }
    }

    mutating func link(_ leaf: FileTree.InodeID, _ entry: VisitedEntry<FileTree.InodeID>) throws(Fault) {
        do throws(FileTreeError) {
            try tree.addLink(ByteString(entry.name), in: entry.parent, to: leaf)
        } catch {
            throw Fault(error.description)
        }
    }

    mutating func endDirectory(_ directory: FileTree.InodeID, holdsEscapedWhiteout: Bool) {
        guard holdsEscapedWhiteout else { return }
        var metadata = tree.metadata(of: directory)
        metadata.remove([OverlayAttribute.whiteouts, OverlayAttribute.userWhiteouts])
        if version == .v1 { metadata.remove([OverlayAttribute.opaque, OverlayAttribute.userOpaque]) }
        tree.setMetadata(of: directory, to: metadata)
    }

    // MARK: Attributes

    private mutating func metadata(
        of inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource
    ) throws(Fault) -> Metadata {
        // Shared attributes can be long, and every inode can have all of them. More than any real tree needs is refused.
        attributeBytes += attributes.byteCount
        guard attributeBytes <= attributeLimit else { throw Fault("the tree's extended attributes are too large in total") }
        var list: [ExtendedAttribute] = []
        for entry in attributes.entries {
            if let attribute = try attribute(entry, source) { list.append(attribute) }
        }
        return Metadata(
            permissions: inode.permissions, uid: inode.uid, gid: inode.gid, modified: inode.modified, extendedAttributes: list)
    }

    /// The attribute as in the tree; nil if the format added it for overlayfs.
    private mutating func attribute(_ entry: ImageAttributes.Entry, _ source: ImageSource) throws(Fault) -> ExtendedAttribute? {
        if entry.isShared, let known = shared[entry.suffix.lowerBound] { return known }
        let suffix = try source.slice(entry.suffix)
        var attribute: ExtendedAttribute?
        if entry.prefix == Erofs.trustedPrefix, suffix.starts(with: OverlaySuffix.prefix) {
            let rest = suffix.dropFirst(OverlaySuffix.prefix.count)
            if rest.starts(with: OverlaySuffix.prefix) {
                let name = OverlayAttribute.prefix.bytes + rest.dropFirst(OverlaySuffix.prefix.count)
                attribute = ExtendedAttribute(name: ByteString(name), value: ByteString(try source.slice(entry.value)))
            }
        } else {
            let name = Erofs.attributePrefixes[Int(entry.prefix)] + suffix
            attribute = ExtendedAttribute(name: ByteString(name), value: ByteString(try source.slice(entry.value)))
        }
        if entry.isShared { shared[entry.suffix.lowerBound] = .some(attribute) }
        return attribute
    }
}

extension Metadata {
    fileprivate mutating func remove(_ names: [ByteString]) {
        setExtendedAttributes(extendedAttributes.filter { !names.contains($0.name) })
    }
}
