internal import ComposefsBytes
public import ComposefsFileTree
internal import ComposefsHashing

/// Parses a dumpfile. Every field is checked; nothing is guessed or repaired.
///
/// The root must come first, and a directory before its entries. A hard link may come before its target, as in files of other writers.
/// NLINK must be a number, but link counts are computed from the entries. Negative times are accepted.
///
/// - Throws: `DumpfileError` with the line, the path and the field.
public func parseDumpfile(_ bytes: UnsafeRawBufferPointer) throws(DumpfileError) -> FileTree {
    var parser = DumpfileParser()
    var start = 0
    while start < bytes.count {
        let end = newline(in: bytes, from: start)
        try parser.line(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
        start = end + 1
    }
    return try parser.finish()
}

/// Parses a dumpfile that is in an array.
public func parseDumpfile(_ bytes: [UInt8]) throws(DumpfileError) -> FileTree {
    let result = bytes.withUnsafeBytes { (all: UnsafeRawBufferPointer) -> Result<FileTree, DumpfileError> in
        do throws(DumpfileError) { return .success(try parseDumpfile(all)) } catch { return .failure(error) }
    }
    return try result.get()
}

private func newline(in bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
    var at = start
    while at < bytes.count, bytes[at] != UInt8(ascii: "\n") { at += 1 }
    return at
}

private struct DumpfileParser {
    typealias Field = DumpfileError.Field

    private var tree: FileTree?
    private var number = 0
    private var path: ByteString?
    /// Hard links whose target has not been seen yet.
    private var pending: [(name: ByteString, directory: FileTree.InodeID, path: ByteString, target: ByteString, line: Int)] = []

    private struct Line {
        var size: UInt64 = 0
        var kind = FileTree.Kind.regular
        var metadata = Metadata(permissions: 0)
        var device: UInt64 = 0
        var payload: ByteString?
        var content: ByteString?
        var digest: UnsafeRawBufferPointer?
    }

    func fail(_ field: Field, _ reason: String) -> DumpfileError {
        DumpfileError(line: number, field: field, path: path, reason: reason)
    }

    mutating func line(_ text: UnsafeRawBufferPointer) throws(DumpfileError) {
        number += 1
        path = nil
        guard !text.isEmpty else { throw fail(.line, "is empty") }
        let fields = text.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map(UnsafeRawBufferPointer.init(rebasing:))
        guard fields.count >= 11 else { throw fail(.line, "has \(fields.count) fields; at least 11 are required") }
        let path = try self.path(fields[0], .path)
        self.path = path
        guard fields[2].first != UInt8(ascii: "@") else {
            try hardLink(at: path, fields)
            return
        }

        let line = try parse(fields)
        guard path != "/" else {
            guard tree == nil else { throw fail(.path, "occurs twice") }
            guard line.kind == .directory else { throw fail(.mode, "the root must be a directory") }
            try checkNoContent(line)
            tree = FileTree(root: line.metadata)
            return
        }
        let content = try content(of: line)
        let (directory, name) = try parent(of: path)
        do throws(FileTreeError) {
            if let content {
                _ = try tree?.addLeaf(name, in: directory, line.metadata, content)
            } else {
                _ = try tree?.addDirectory(name, in: directory, line.metadata)
            }
        } catch { throw refused(error) }
    }

    consuming func finish() throws(DumpfileError) -> FileTree {
        guard var tree else { throw DumpfileError(line: 0, field: .path, reason: "there is no line for the root directory '/'") }
        for link in pending {
            let missing = DumpfileError(line: link.line, field: .payload, path: link.path, reason: "'\(link.target)' does not exist")
            guard let target = tree.lookup(path: link.target) else { throw missing }
            do throws(FileTreeError) {
                try tree.addLink(link.name, in: link.directory, to: target)
            } catch {
                throw DumpfileError(line: link.line, field: .payload, path: link.path, reason: error.description)
            }
        }
        return tree
    }

    // MARK: Lines

    private func parse(_ fields: [UnsafeRawBufferPointer]) throws(DumpfileError) -> Line {
        var line = Line()
        line.size = try decimal(fields[1], .size)
        let mode: UInt32 = try integer(fields[2], radix: 8, .mode)
        guard mode <= 0o177777, let kind = FileTree.Kind(modeBits: mode) else { throw fail(.mode, "is not a valid file type") }
        line.kind = kind
        let _: UInt32 = try decimal(fields[3], .nlink)
        line.device = try decimal(fields[6], .rdev)
        if line.device != 0, kind != .characterDevice, kind != .blockDevice { throw fail(.rdev, "is for devices only") }
        if line.device > UInt64(UInt32.max) { throw fail(.rdev, "does not fit in 32 bits") }
        line.payload = try optional(fields[8], .payload)
        line.content = try optional(fields[9], .content)
        line.digest = fields[10].elementsEqual(CollectionOfOne(UInt8(ascii: "-"))) ? nil : fields[10]
        line.metadata = Metadata(
            permissions: UInt16(mode & 0o7777), uid: try decimal(fields[4], .uid), gid: try decimal(fields[5], .gid),
            modified: try time(fields[7]), extendedAttributes: try attributes(fields[11...]))
        return line
    }

    /// The content of a leaf; nil for a directory.
    private func content(of line: Line) throws(DumpfileError) -> Content? {
        switch line.kind {
        case .regular: return try regular(line)
        case .symbolicLink:
            guard line.content == nil else { throw fail(.content, "is for regular files only") }
            guard line.digest == nil else { throw fail(.digest, "is for regular files only") }
            guard let target = line.payload, !target.isEmpty else { throw fail(.payload, "a symlink needs a target") }
            guard target.count <= DumpfileLimits.linkTarget else {
                throw fail(.payload, "the target has \(target.count) bytes; the limit is \(DumpfileLimits.linkTarget)")
            }
            guard !target.bytes.contains(0) else { throw fail(.payload, "the target contains a NUL") }
            return .symbolicLink(target)
        case .directory:
            try checkNoContent(line)
            return nil
        case .characterDevice:
            try checkNoContent(line)
            return .characterDevice(line.device)
        case .blockDevice:
            try checkNoContent(line)
            return .blockDevice(line.device)
        case .fifo:
            try checkNoContent(line)
            return .fifo
        case .socket:
            try checkNoContent(line)
            return .socket
        }
    }

    private func checkNoContent(_ line: Line) throws(DumpfileError) {
        guard line.payload == nil else { throw fail(.payload, "is for regular files and links only") }
        guard line.content == nil else { throw fail(.content, "is for regular files only") }
        guard line.digest == nil else { throw fail(.digest, "is for regular files only") }
    }

    private func regular(_ line: Line) throws(DumpfileError) -> Content {
        guard line.size <= DumpfileLimits.fileSize else { throw fail(.size, "is over \(DumpfileLimits.fileSize) bytes") }
        guard let payload = line.payload else {
            guard line.digest == nil else { throw fail(.digest, "needs an object in the payload field") }
            guard let content = line.content else { return line.size == 0 ? .inline(ByteString()) : .sparse(size: line.size) }
            guard content.count <= DumpfileLimits.inlineContent else {
                throw fail(.content, "has \(content.count) bytes; the limit is \(DumpfileLimits.inlineContent)")
            }
            guard UInt64(content.count) == line.size else { throw fail(.content, "has \(content.count) bytes, but size is \(line.size)") }
            return .inline(content)
        }
        guard line.content == nil else { throw fail(.content, "a file has either content or a payload") }
        let path = payload.bytes.first == UInt8(ascii: "/") ? payload.bytes.dropFirst() : payload.bytes[...]
        guard let object = ObjectID(objectPath: path) else {
            throw fail(.payload, "'\(payload)' is not an object path (XX/ and the rest of 64 or 128 hex digits)")
        }
        guard let digest = line.digest else { return .externalWithoutVerity(object, size: line.size) }
        guard let id = ObjectID(hex: digest) else { throw fail(.digest, "is not 64 or 128 hex digits") }
        guard id == object else { throw fail(.digest, "differs from the object in the payload field") }
        return .external(id, size: line.size)
    }

    private mutating func hardLink(at path: ByteString, _ fields: [UnsafeRawBufferPointer]) throws(DumpfileError) {
        let mode: UInt32 = try integer(UnsafeRawBufferPointer(rebasing: fields[2].dropFirst()), radix: 8, .mode)
        guard mode <= 0o177777, let kind = FileTree.Kind(modeBits: mode) else { throw fail(.mode, "is not a valid file type") }
        guard kind != .directory else { throw fail(.mode, "a directory cannot be a hard link") }
        guard path != "/" else { throw fail(.path, "the root cannot be a hard link") }
        guard !fields[8].elementsEqual(CollectionOfOne(UInt8(ascii: "-"))) else { throw fail(.payload, "a hard link needs a target") }
        let target = try self.path(fields[8], .payload)
        guard target != path else { throw fail(.payload, "a hard link to itself") }
        let (directory, name) = try parent(of: path)
        guard let leaf = tree?.lookup(path: target) else {
            pending.append((name, directory, path, target, number))
            return
        }
        do throws(FileTreeError) { try tree?.addLink(name, in: directory, to: leaf) } catch { throw refused(error) }
    }

    /// The directory and the name of a path other than the root's.
    private func parent(of path: ByteString) throws(DumpfileError) -> (FileTree.InodeID, ByteString) {
        guard let tree else { throw fail(.path, "the first line must be that of the root directory '/'") }
        let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) ?? 0
        guard let directory = tree.lookup(path: ByteString(path.bytes[..<slash])) else {
            throw fail(.path, "its parent directory does not exist")
        }
        guard tree.isDirectory(directory) else { throw fail(.path, "its parent is not a directory") }
        return (directory, ByteString(path.bytes[(slash + 1)...]))
    }

    private func refused(_ error: FileTreeError) -> DumpfileError {
        switch error {
        case .exists: fail(.path, "occurs twice")
        default: fail(.path, error.description)
        }
    }

    // MARK: Fields

    private func path(_ field: UnsafeRawBufferPointer, _ name: Field) throws(DumpfileError) -> ByteString {
        guard let path = DumpfileEscape.unescape(field) else { throw fail(name, "has an unknown escape") }
        guard path.bytes.first == UInt8(ascii: "/") else { throw fail(name, "'\(path)' does not begin with '/'") }
        guard path.count <= DumpfileLimits.path else { throw fail(name, "is longer than \(DumpfileLimits.path) bytes") }
        guard path.count > 1 else { return path }
        for part in path.bytes.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            guard !part.isEmpty else { throw fail(name, "'\(path)' contains an empty name") }
            guard part.count <= DumpfileLimits.name else { throw fail(name, "contains a name longer than \(DumpfileLimits.name) bytes") }
            guard !part.elementsEqual(".".utf8), !part.elementsEqual("..".utf8) else { throw fail(name, "'\(path)' contains '.' or '..'") }
            guard !part.contains(0) else { throw fail(name, "'\(path)' contains a NUL") }
        }
        return path
    }

    private func optional(_ field: UnsafeRawBufferPointer, _ name: Field) throws(DumpfileError) -> ByteString? {
        guard !field.isEmpty else { throw fail(name, "is empty ('-' means none)") }
        if field.elementsEqual(CollectionOfOne(UInt8(ascii: "-"))) { return nil }
        guard let bytes = DumpfileEscape.unescape(field) else { throw fail(name, "has an unknown escape") }
        return bytes
    }

    private func attributes(_ fields: ArraySlice<UnsafeRawBufferPointer>) throws(DumpfileError) -> [ExtendedAttribute] {
        var list: [ExtendedAttribute] = []
        var names: Set<ByteString> = []
        var total = 0
        for field in fields {
            guard let equals = field.firstIndex(of: UInt8(ascii: "=")) else { throw fail(.attribute, "has no '='") }
            guard let name = DumpfileEscape.unescape(field[..<equals]), let value = DumpfileEscape.unescape(field[(equals + 1)...]) else {
                throw fail(.attribute, "has an unknown escape")
            }
            guard !name.isEmpty else { throw fail(.attribute, "has no name") }
            guard name.count <= DumpfileLimits.attributeName else {
                throw fail(.attribute, "the name has \(name.count) bytes; the limit is \(DumpfileLimits.attributeName)")
            }
            guard !name.bytes.contains(0) else { throw fail(.attribute, "the name contains a NUL") }
            guard value.count <= DumpfileLimits.attributeValue else {
                throw fail(.attribute, "'\(name)' has \(value.count) bytes; the limit is \(DumpfileLimits.attributeValue)")
            }
            guard names.insert(name).inserted else { throw fail(.attribute, "'\(name)' occurs twice") }
            total += name.count + 1
            guard total <= DumpfileLimits.attributeNames else { throw fail(.attribute, "all names together are too long") }
            list.append(ExtendedAttribute(name: name, value: value))
        }
        return list
    }

    private func time(_ field: UnsafeRawBufferPointer) throws(DumpfileError) -> Timestamp {
        guard let dot = field.firstIndex(of: UInt8(ascii: ".")) else { throw fail(.mtime, "has no '.'") }
        let negative = field.first == UInt8(ascii: "-")
        let magnitude: UInt64 = try decimal(UnsafeRawBufferPointer(rebasing: field[(negative ? 1 : 0)..<dot]), .mtime)
        let nanoseconds: UInt32 = try decimal(UnsafeRawBufferPointer(rebasing: field[(dot + 1)...]), .mtime)
        guard nanoseconds < 1_000_000_000 else { throw fail(.mtime, "has more than 999,999,999 nanoseconds") }
        guard let seconds = negative ? Int64(exactly: -Int128(magnitude)) : Int64(exactly: magnitude) else {
            throw fail(.mtime, "does not fit in 64 bits")
        }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    private func decimal<Value: FixedWidthInteger>(_ field: UnsafeRawBufferPointer, _ name: Field) throws(DumpfileError) -> Value {
        try integer(field, radix: 10, name)
    }

    private func integer<Value: FixedWidthInteger>(
        _ field: UnsafeRawBufferPointer, radix: Value, _ name: Field
    ) throws(DumpfileError) -> Value {
        guard !field.isEmpty else { throw fail(name, "is empty") }
        var value: Value = 0
        for byte in field {
            guard byte >= 0x30, byte < 0x30 + UInt8(radix) else {
                throw fail(name, "'\(ByteString(field))' is not a number in base \(radix)")
            }
            let (product, over) = value.multipliedReportingOverflow(by: radix)
            let (sum, carry) = product.addingReportingOverflow(Value(byte - 0x30))
            guard !over, !carry else { throw fail(name, "'\(ByteString(field))' is too large") }
            value = sum
        }
        return value
    }
}
