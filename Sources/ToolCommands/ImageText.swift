import ComposefsBytes
import ComposefsDumpfile
import ComposefsFileTree
import ComposefsHashing
import ComposefsOCI

/// An image as lines of text, in the form of `composefs-info`.
///
/// The tree has lost what only the image has: the size of directories, and which extended attributes several inodes share. Both are computed
/// again from the rules of the format (Repo-Format.md, "EROFS images").
struct ImageText {
    private struct Attribute: Hashable {
        var name: ByteString
        var value: ByteString
    }

    private let tree: FileTree
    private let version: ErofsVersion
    /// How many inodes have an attribute.
    private var uses: [Attribute: Int] = [:]
    private let filter: Set<ByteString>

    /// - Parameter filter: the entries of the root that are shown; all if it is empty.
    init(_ tree: FileTree, _ version: ErofsVersion, only filter: Set<ByteString>) {
        self.tree = tree
        self.filter = filter
        self.version = version
    }

    /// - Parameter body: as that of `FileTree.forEachEntry`.
    private func forEachEntry(_ body: (ByteString, FileTree.InodeID, ByteString?) throws -> Void) rethrows {
        let top = tree.sortedEntries(of: FileTree.root).filter { filter.isEmpty || filter.contains(tree.name(of: $0)) }
        try tree.forEachEntry(from: FileTree.EntryList(top), body)
    }

    // MARK: Lines

    /// `PATH/`, `PATH -> TARGET` or `PATH @ OBJECT`, with a tab in the middle. The C tool shows no more than the path of further names.
    func list(_ write: ([UInt8]) throws -> Void) throws {
        try forEachEntry { path, inode, first in
            var line: [UInt8] = []
            DumpfileEscape.append(path.bytes, .list, to: &line)
            if first == nil {
                switch tree.content(of: inode) {
                case nil: line += Array("/\t".utf8)
                case .symbolicLink(let target):
                    line += Array("\t-> ".utf8)
                    DumpfileEscape.append(target.bytes, .plain, to: &line)
                case .external(let id, _), .externalWithoutVerity(let id, _): line += Array("\t@ \(id.objectPath)".utf8)
                default: break
                }
            }
            try write(line + [UInt8(ascii: "\n")])
        }
    }

    func objects() -> [ObjectID] {
        var found: [ObjectID] = []
        forEachEntry { _, inode, first in
            guard first == nil else { return }
            switch tree.content(of: inode) {
            case .external(let id, _), .externalWithoutVerity(let id, _): found.append(id)
            default: break
            }
        }
        return found
    }

    /// A dumpfile as the C tool prints it: directories have their size in the image, and a further name of a leaf repeats what the leaf is.
    func dump(_ write: ([UInt8]) throws -> Void) throws {
        var counted = self
        counted.countAttributes()
        try write(counted.line("/", FileTree.root, nil))
        try forEachEntry { path, inode, first in try write(counted.line(path, inode, first)) }
    }

    private func line(_ path: ByteString, _ inode: FileTree.InodeID, _ first: ByteString?) -> [UInt8] {
        let metadata = tree.metadata(of: inode)
        let content = tree.content(of: inode)
        var (size, device, payload, inline, digest): (UInt64, UInt64, ByteString?, ByteString?, String?) = (0, 0, nil, nil, nil)
        switch content {
        case nil: size = directorySize(inode)
        case .inline(let bytes): (size, inline) = (UInt64(bytes.count), bytes.isEmpty ? nil : bytes)
        case .external(let id, let length): (size, payload, digest) = (length, ByteString(id.objectPath), id.hex)
        case .externalWithoutVerity(let id, let length): (size, payload) = (length, ByteString(id.objectPath))
        case .sparse(let length): size = length
        case .symbolicLink(let target): (size, payload) = (UInt64(target.count), target)
        case .blockDevice(let number), .characterDevice(let number): device = number
        case .fifo, .socket: break
        }
        let mode = String(UInt32(tree.kind(of: inode).modeBits | metadata.permissions), radix: 8)
        let links = content == nil ? subdirectories(inode) + 2 : tree.linkCount(of: inode)
        var out: [UInt8] = []
        DumpfileEscape.append(path.bytes, .plain, to: &out)
        let numbers: [String] = [
            "\(size)", (first == nil ? "" : "@") + mode, "\(links)", "\(metadata.uid)", "\(metadata.gid)", "\(device)",
            "\(metadata.modified.seconds).\(metadata.modified.nanoseconds)",
        ]
        out += Array((" " + numbers.joined(separator: " ") + " ").utf8)
        DumpfileEscape.append((first ?? payload ?? "").bytes, .optional, to: &out)
        out.append(UInt8(ascii: " "))
        DumpfileEscape.append((inline ?? "").bytes, .optional, to: &out)
        out += Array((" " + (digest ?? "-")).utf8)
        for attribute in inOrder(metadata.extendedAttributes) {
            out.append(UInt8(ascii: " "))
            DumpfileEscape.append(attribute.name.bytes, .attribute, to: &out)
            out.append(UInt8(ascii: "="))
            DumpfileEscape.append(attribute.value.bytes, .attribute, to: &out)
        }
        out.append(UInt8(ascii: "\n"))
        return out
    }

    // MARK: What only the image has

    private func subdirectories(_ directory: FileTree.InodeID) -> UInt32 {
        UInt32(clamping: tree.entries(of: directory).count { tree.isDirectory(tree.inode(of: $0)) })
    }

    /// The size of a directory's entries: whole blocks, and what remains if it is at most half a block.
    private func directorySize(_ directory: FileTree.InodeID) -> UInt64 {
        var names: [ByteString] = tree.entries(of: directory).map { tree.name(of: $0) } + [".", ".."]
        if directory == FileTree.root, version != .v2 {
            let known = Set(names)
            names += (0..<256).map { ByteString(String(String(0x100 + $0, radix: 16).dropFirst())) }.filter { !known.contains($0) }
        }
        let blockSize: UInt64 = 4096
        let headerSize: UInt64 = 12
        var (blocks, filled): (UInt64, UInt64) = (0, 0)
        for name in names.sorted() {
            let size = headerSize + UInt64(name.count)
            if filled + size > blockSize {
                blocks += 1
                filled = 0
            }
            filled += size
        }
        return filled > blockSize / 2 ? (blocks + 1) * blockSize : blocks * blockSize + filled
    }

    private mutating func countAttributes() {
        var seen: Set<FileTree.InodeID> = []
        var pending = [FileTree.root]
        while let inode = pending.popLast() {
            guard seen.insert(inode).inserted else { continue }
            for attribute in tree.extendedAttributes(of: inode) {
                uses[Attribute(name: attribute.name, value: attribute.value), default: 0] += 1
            }
            pending += tree.entries(of: inode).map { tree.inode(of: $0) }
        }
        // The entries that hide the directories of objects have the root's label.
        if version != .v2, let label = tree.metadata(of: FileTree.root)[attribute: "security.selinux"] {
            uses[Attribute(name: "security.selinux", value: label), default: 0] += 1
        }
    }

    /// As they are in the image: in byte order of the names, but those of one inode alone before those that several share.
    private func inOrder(_ attributes: [ExtendedAttribute]) -> [ExtendedAttribute] {
        func stored(_ name: ByteString) -> ByteString {
            let prefix: ByteString = "trusted.overlay."
            return name.hasPrefix(prefix) ? prefix + "overlay." + ByteString(name.bytes.dropFirst(prefix.count)) : name
        }
        let sorted = attributes.sorted { stored($0.name) < stored($1.name) }
        func isShared(_ attribute: ExtendedAttribute) -> Bool {
            uses[Attribute(name: attribute.name, value: attribute.value), default: 0] > 1
        }
        return sorted.filter { !isShared($0) } + sorted.filter(isShared)
    }
}
