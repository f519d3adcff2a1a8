internal import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// An inode of an image, as in the tree that the image was made from: a whiteout that versions 0 and 1 escape appears as a character device
/// 0:0 again.
public struct ErofsInode: Sendable {
    /// The inode's number in the image: offset / 32.
    public let number: UInt64
    public let kind: FileTree.Kind
    /// The twelve permission bits (07777).
    public let permissions: UInt16
    public let uid: UInt32
    public let gid: UInt32
    public let modified: Timestamp
    public let links: UInt32
    /// The size in bytes.
    public let size: UInt64
    /// For a device node, the number in Linux's 32-bit encoding (the low half of `makedev`); otherwise 0.
    public let deviceNumber: UInt32
    /// Whether the inode has extended attributes, including those for overlayfs.
    public var hasAttributes: Bool { !inode.attributes.isEmpty }
    /// File type and permission bits, as in `st_mode`.
    public var mode: UInt32 { UInt32(kind.modeBits) | UInt32(permissions) }

    let inode: ImageInode
    let isEscapedWhiteout: Bool
}

/// The location of the bytes of a regular file or symbolic link.
public enum ErofsContent: Sendable, Hashable {
    /// The bytes are in the image, or there are none.
    case inImage
    /// The bytes are in an object. If the digest is not enforced, the image names the object only by its path.
    case object(ObjectID, isEnforced: Bool)
    /// The file is one hole and has no bytes.
    case hole
}

// MARK: - Serving from the image

/// An image is checked completely when it is opened, so these functions find no errors in it. Every read is nevertheless checked against
/// the end of the image, and numbers that do not name an inode throw.
extension ErofsImage {
    /// The root directory's inode number.
    public var rootNumber: UInt64 { superblock.rootNumber }

    /// The size of the image in bytes.
    public var byteCount: Int { bytes.count }

    /// The inode with the given number, which came from an entry of this image.
    public func inode(_ number: UInt64) throws(ErofsError) -> ErofsInode {
        try withSource(number) { (source) throws(Fault) in try source.view(number) }
    }

    /// Finds a name in a directory by binary search; nil if it does not exist. `.` and `..` are ordinary names here.
    public func lookup(_ name: UnsafeRawBufferPointer, in directory: ErofsInode) throws(ErofsError) -> ErofsInode? {
        guard directory.kind == .directory else { return nil }
        return try withSource(directory.number) { (source) throws(Fault) -> ErofsInode? in
            guard let entry = try source.find(name, in: directory.inode) else { return nil }
            let found = try source.view(entry.number)
            return isHidden(name, found, in: directory) ? nil : found
        }
    }

    /// Calls `body` with the entries of a directory, including `.` and `..`, in byte order of their names, until it returns false.
    ///
    /// - Parameters:
    ///   - position: 0 for the first entry, or the value of `next` that was passed with the previous entry. Any other value ends the
    ///     listing.
    ///   - body: Receives an entry. The name's bytes are valid only during the call.
    public func forEachEntry(
        of directory: ErofsInode, from position: UInt64,
        _ body: (_ name: UnsafeRawBufferPointer, _ inode: ErofsInode, _ next: UInt64) -> Bool
    ) throws(ErofsError) {
        guard directory.kind == .directory else { return }
        try withSource(directory.number) { (source) throws(Fault) in
            let blocks = source.blockCount(of: directory.inode)
            guard let start = Int(exactly: position), start < blocks * Erofs.blockSize else { return }
            var entry = start % Erofs.blockSize / DirectoryEntryLayout.size
            guard start % Erofs.blockSize % DirectoryEntryLayout.size == 0 else { return }
            for index in (start / Erofs.blockSize)..<blocks {
                let block = try DirectoryBlock(source, directory.inode, index)
                while entry < block.count {
                    let name = try block.name(entry)
                    let found = try source.view(try block.number(entry))
                    entry += 1
                    let next =
                        entry < block.count ? index * Erofs.blockSize + entry * DirectoryEntryLayout.size : (index + 1) * Erofs.blockSize
                    if isHidden(name, found, in: directory) { continue }
                    guard body(name, found, UInt64(next)) else { return }
                }
                entry = 0
            }
        }
    }

    /// Whether an entry hides a directory of the object store. Versions 0 and 1 add such entries to the root; they are not part of the
    /// tree.
    private func isHidden(_ name: UnsafeRawBufferPointer, _ inode: ErofsInode, in directory: ErofsInode) -> Bool {
        directory.number == superblock.rootNumber && version.isFirstEpoch && inode.inode.kind == .characterDevice && inode.inode.value == 0
            && Erofs.isObjectDirectory(name)
    }

    /// The location of a file's bytes.
    public func content(of inode: ErofsInode) throws(ErofsError) -> ErofsContent {
        guard inode.inode.layout == .chunked else { return .inImage }
        return try withSource(inode.number) { (source) throws(Fault) -> ErofsContent in
            var attributes = ImageAttributes()
            try attributes.read(inode.inode.attributes, of: source)
            if let id = attributes.metacopy { return .object(id, isEnforced: true) }
            if let id = attributes.redirect { return .object(id, isEnforced: false) }
            return .hole
        }
    }

    /// Copies bytes of a regular file or a symbolic link's target that are in the image, starting at `offset`. Returns the number of bytes,
    /// 0 at the end.
    public func read(_ inode: ErofsInode, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(ErofsError) -> Int {
        let it = inode.inode
        guard !inode.isEscapedWhiteout, it.kind == .regular || it.kind == .symbolicLink, it.layout != .chunked, offset < it.size else {
            return 0
        }
        return try withSource(inode.number) { (source) throws(Fault) -> Int in
            // At most the size of the image, which was checked when the inode was read.
            let inBlocks = Int(truncatingIfNeeded: it.size) - it.tail.count
            var at = Int(truncatingIfNeeded: offset)
            var filled = 0
            if at < inBlocks {
                let count = min(buffer.count, inBlocks - at)
                let part = try source.slice((it.blocks.lowerBound + at)..<(it.blocks.lowerBound + at + count))
                buffer.copyMemory(from: part)
                filled = count
                at += count
            }
            if at >= inBlocks, filled < buffer.count {
                let skip = at - inBlocks
                let count = min(buffer.count - filled, it.tail.count - skip)
                guard count > 0 else { return filled }
                let part = try source.slice((it.tail.lowerBound + skip)..<(it.tail.lowerBound + skip + count))
                UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).copyMemory(from: part)
                filled += count
            }
            return filled
        }
    }

    /// The extended attributes in the image's order, without those that the format added for overlayfs. Escaped attributes have their
    /// original names.
    public func attributes(of inode: ErofsInode) throws(ErofsError) -> [ExtendedAttribute] {
        guard inode.hasAttributes else { return [] }
        return try withSource(inode.number) { (source) throws(Fault) -> [ExtendedAttribute] in
            var read = ImageAttributes()
            try read.read(inode.inode.attributes, of: source)
            var list: [ExtendedAttribute] = []
            for entry in read.entries {
                guard let name = try source.name(of: entry) else { continue }
                list.append(ExtendedAttribute(name: name, value: ByteString(try source.slice(entry.value))))
            }
            let added = try formatAttributes(inode, read, source)
            if !added.isEmpty { list.removeAll { added.contains($0.name) } }
            return list
        }
    }

    /// Attributes that the format added to an inode because of whiteouts, under the names that they would have in the tree.
    private func formatAttributes(
        _ inode: ErofsInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource
    ) throws(Fault) -> [ByteString] {
        if inode.isEscapedWhiteout { return [OverlayAttribute.whiteout, OverlayAttribute.userWhiteout] }
        guard version.isFirstEpoch, inode.kind == .directory, attributes.hasOverlayEscape else { return [] }
        for index in 0..<source.blockCount(of: inode.inode) {
            let block = try DirectoryBlock(source, inode.inode, index)
            for entry in 0..<block.count where try source.view(try block.number(entry)).isEscapedWhiteout {
                let marks = [OverlayAttribute.whiteouts, OverlayAttribute.userWhiteouts]
                return version == .v1 ? marks + [OverlayAttribute.opaque, OverlayAttribute.userOpaque] : marks
            }
        }
        return []
    }

    private func withSource<Result>(
        _ number: UInt64, _ body: (ImageSource) throws(Fault) -> Result
    ) throws(ErofsError) -> Result {
        try bytes.withUnsafeBufferPointer { (buffer) throws(ErofsError) -> Result in
            do throws(Fault) {
                return try body(ImageSource(bytes: UnsafeRawBufferPointer(buffer), superblock: superblock, algorithm: nil))
            } catch {
                throw .damaged(nid: number, path: nil, error.what)
            }
        }
    }
}

// MARK: - Inodes, directories and names of an image

extension ImageSource {
    func view(_ number: UInt64) throws(Fault) -> ErofsInode {
        let it = try inode(number)
        var isEscaped = false
        // Attributes are read only if the inode can be an escaped whiteout.
        if superblock.version.isFirstEpoch, it.kind == .regular, it.layout == .plain, it.size == 0, it.links == 1, !it.attributes.isEmpty {
            var attributes = ImageAttributes()
            try attributes.read(it.attributes, of: self)
            isEscaped = it.isEscapedWhiteout(attributes)
        }
        let kind = isEscaped ? .characterDevice : it.kind
        let isDevice = !isEscaped && (kind == .characterDevice || kind == .blockDevice)
        return ErofsInode(
            number: number, kind: kind, permissions: it.permissions, uid: it.uid, gid: it.gid, modified: it.modified, links: it.links,
            size: it.size, deviceNumber: isDevice ? it.value : 0, inode: it, isEscapedWhiteout: isEscaped)
    }

    /// The number of entry blocks of a directory, including the one in its tail.
    func blockCount(of directory: ImageInode) -> Int {
        directory.blocks.count / Erofs.blockSize + (directory.tail.isEmpty ? 0 : 1)
    }

    func find(_ name: UnsafeRawBufferPointer, in directory: ImageInode) throws(Fault) -> (number: UInt64, block: Int)? {
        // Find the last block whose first name is not after the name.
        var (low, high) = (0, blockCount(of: directory))
        while low < high {
            let middle = (low + high) / 2
            let block = try DirectoryBlock(self, directory, middle)
            if compareBytes(try block.name(0), name) <= 0 { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let block = try DirectoryBlock(self, directory, low - 1)
        var (first, end) = (0, block.count)
        while first < end {
            let middle = (first + end) / 2
            let order = compareBytes(try block.name(middle), name)
            if order == 0 { return (try block.number(middle), low - 1) }
            if order < 0 { first = middle + 1 } else { end = middle }
        }
        return nil
    }

    /// The name of an attribute in the tree; nil if the format added the attribute.
    func name(of entry: ImageAttributes.Entry) throws(Fault) -> ByteString? {
        let suffix = try slice(entry.suffix)
        guard entry.prefix == Erofs.trustedPrefix, suffix.starts(with: OverlaySuffix.prefix) else {
            return ByteString(Erofs.attributePrefixes[Int(entry.prefix)] + suffix)
        }
        let rest = suffix.dropFirst(OverlaySuffix.prefix.count)
        guard rest.starts(with: OverlaySuffix.prefix) else { return nil }
        return ByteString(OverlayAttribute.prefix.bytes + rest.dropFirst(OverlaySuffix.prefix.count))
    }
}
