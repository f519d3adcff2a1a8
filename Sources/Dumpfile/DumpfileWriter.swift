public import ComposefsBytes
public import ComposefsFileTree
internal import ComposefsHashing

/// The kind of entry that a line of a dumpfile describes.
public enum DumpfileItem: Sendable {
    /// NLINK is 2 plus the number of subdirectories in the dump of a tree, and 1 in the dump of a layer.
    case directory(links: UInt32)
    case leaf(Content, links: UInt32)
    /// A further name of the leaf at an absolute path.
    case hardLink(to: ByteString)
}

/// Appends one line, including its newline, for the entry at an absolute path.
///
/// The form is `PATH SIZE MODE NLINK UID GID RDEV SEC.NSEC PAYLOAD CONTENT DIGEST[ KEY=VALUE…]`. The nanoseconds are a plain number without
/// leading zeros. A hard link has the metadata of its target, so it is not written.
public func appendDumpfileLine(path: ByteString, metadata: Metadata, _ item: DumpfileItem, to out: inout [UInt8]) {
    DumpfileEscape.append(path.bytes, .plain, to: &out)
    let (size, kind, links, device): (UInt64, FileTree.Kind, UInt32, UInt64)
    switch item {
    case .hardLink(let target):
        append(" 0 @120000 - - - - 0.0 ", to: &out)
        DumpfileEscape.append(target.bytes, .optional, to: &out)
        append(" - -\n", to: &out)
        return
    case .directory(let count): (size, kind, links, device) = (0, .directory, count, 0)
    case .leaf(let content, let count):
        kind = content.kind
        links = count
        switch content {
        case .inline(let bytes), .symbolicLink(let bytes): (size, device) = (UInt64(bytes.count), 0)
        case .external(_, let length), .externalWithoutVerity(_, let length), .sparse(let length): (size, device) = (length, 0)
        case .blockDevice(let number), .characterDevice(let number): (size, device) = (0, number)
        case .fifo, .socket: (size, device) = (0, 0)
        }
    }
    field(size, to: &out)
    field(UInt64(kind.modeBits | metadata.permissions), radix: 8, to: &out)
    field(UInt64(links), to: &out)
    field(UInt64(metadata.uid), to: &out)
    field(UInt64(metadata.gid), to: &out)
    field(device, to: &out)
    out.append(UInt8(ascii: " "))
    append(String(metadata.modified.seconds), to: &out)
    out.append(UInt8(ascii: "."))
    append(String(metadata.modified.nanoseconds), to: &out)
    out.append(UInt8(ascii: " "))
    appendContent(item, to: &out)
    for attribute in metadata.extendedAttributes {
        out.append(UInt8(ascii: " "))
        DumpfileEscape.append(attribute.name.bytes, .attribute, to: &out)
        out.append(UInt8(ascii: "="))
        DumpfileEscape.append(attribute.value.bytes, .attribute, to: &out)
    }
    out.append(UInt8(ascii: "\n"))
}

/// Returns one line, as `appendDumpfileLine` writes it.
public func dumpfileLine(path: ByteString, metadata: Metadata, _ item: DumpfileItem) -> [UInt8] {
    var line: [UInt8] = []
    appendDumpfileLine(path: path, metadata: metadata, item, to: &line)
    return line
}

/// Writes a tree as a dumpfile: the root first, then depth-first in byte order of the names, in parts of about 64 KiB.
///
/// A file without an enforced digest has its object in PAYLOAD and `-` as DIGEST, so that parsing gives the same tree.
public func writeDumpfile<Failure: Error>(
    _ tree: FileTree, to output: (UnsafeRawBufferPointer) throws(Failure) -> Void
) throws(Failure) {
    var out: [UInt8] = []
    out.reserveCapacity(80 << 10)
    appendDumpfileLine(
        path: "/", metadata: tree.metadata(of: FileTree.root), .directory(links: directoryLinks(FileTree.root, in: tree)), to: &out)
    try tree.forEachEntry(from: tree.sortedEntries(of: FileTree.root)) { (path, inode, first) throws(Failure) in
        let item: DumpfileItem
        if let first {
            item = .hardLink(to: first)
        } else if let content = tree.content(of: inode) {
            item = .leaf(content, links: tree.linkCount(of: inode))
        } else {
            item = .directory(links: directoryLinks(inode, in: tree))
        }
        appendDumpfileLine(path: path, metadata: tree.metadata(of: inode), item, to: &out)
        if out.count >= 64 << 10 {
            try flush(&out, to: output)
        }
    }
    try flush(&out, to: output)
}

private func flush<Failure: Error>(_ out: inout [UInt8], to output: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
    try out.span.bytes.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) throws(Failure) in try output(bytes) }
    out.removeAll(keepingCapacity: true)
}

/// Returns the whole dumpfile of a tree.
public func dumpfile(of tree: FileTree) -> [UInt8] {
    var all: [UInt8] = []
    writeDumpfile(tree) { all.append(contentsOf: $0) }
    return all
}

private func directoryLinks(_ directory: FileTree.InodeID, in tree: FileTree) -> UInt32 {
    var links: UInt32 = 2
    for entry in tree.entries(of: directory) where tree.isDirectory(tree.inode(of: entry)) { links &+= 1 }
    return links
}

private func appendContent(_ item: DumpfileItem, to out: inout [UInt8]) {
    guard case .leaf(let content, _) = item else {
        append("- - -", to: &out)
        return
    }
    switch content {
    case .inline(let bytes):
        append("- ", to: &out)
        DumpfileEscape.append(bytes.bytes, .optional, to: &out)
        append(" -", to: &out)
    case .external(let id, _): append("\(id.objectPath) - \(id.hex)", to: &out)
    case .externalWithoutVerity(let id, _): append("\(id.objectPath) - -", to: &out)
    case .symbolicLink(let target):
        DumpfileEscape.append(target.bytes, .optional, to: &out)
        append(" - -", to: &out)
    case .sparse, .blockDevice, .characterDevice, .fifo, .socket: append("- - -", to: &out)
    }
}

private func field(_ value: UInt64, radix: Int = 10, to out: inout [UInt8]) {
    out.append(UInt8(ascii: " "))
    append(String(value, radix: radix), to: &out)
}

private func append(_ text: String, to out: inout [UInt8]) { out.append(contentsOf: text.utf8) }
