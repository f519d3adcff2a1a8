public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// What is at a path of an image.
public struct ImageEntry: Sendable, Hashable, Codable {
    /// The type of a file.
    public enum Kind: String, Sendable, Hashable, Codable {
        case file, directory, symlink
        case characterDevice = "character-device"
        case blockDevice = "block-device"
        case fifo, socket
    }

    /// The path from the root of the image on, without symbolic links on the way.
    public var path: ByteString
    public var kind: Kind
    /// The twelve permission bits.
    public var permissions: UInt16
    public var uid: UInt32
    public var gid: UInt32
    public var modified: Timestamp
    /// In bytes; 0 for all but regular files.
    public var size: UInt64
    /// The number of names; 1 for directories.
    public var links: UInt32
    /// Where a symbolic link leads to; nil for other kinds.
    public var target: ByteString?
    /// The object of a regular file that is not in the image itself.
    public var object: ObjectID?
    /// The device number of a device, as `st_rdev` has it.
    public var device: UInt64?
    /// The extended attributes, by name in ascending byte order.
    public var attributes: [ExtendedAttribute]

    init(_ tree: FileTree, _ inode: FileTree.InodeID, _ path: ByteString) {
        let metadata = tree.metadata(of: inode)
        self.path = path
        kind =
            switch tree.kind(of: inode) {
            case .regular: .file
            case .directory: .directory
            case .characterDevice: .characterDevice
            case .blockDevice: .blockDevice
            case .fifo: .fifo
            case .socket: .socket
            case .symbolicLink: .symlink
            }
        permissions = metadata.permissions
        uid = metadata.uid
        gid = metadata.gid
        modified = metadata.modified
        links = tree.isDirectory(inode) ? 1 : tree.linkCount(of: inode)
        attributes = metadata.extendedAttributes
        size = 0
        switch tree.content(of: inode) {
        case .inline(let bytes): size = UInt64(bytes.count)
        case .external(let id, let count), .externalWithoutVerity(let id, let count): (object, size) = (id, count)
        case .sparse(let count): size = count
        case .symbolicLink(let target): self.target = target
        case .blockDevice(let number), .characterDevice(let number): device = number
        case .fifo, .socket, nil: break
        }
    }
}

extension ImageTree {
    /// The most bytes that `readFile` returns if the caller names no limit: 64 MiB.
    public static let defaultReadLimit: UInt64 = 64 << 20

    /// What is at a path.
    ///
    /// - Parameters:
    ///   - path: from the root of the image on. Symbolic links are followed inside the image.
    ///   - followingLast: whether a link at the end of the path is followed, too.
    /// - Throws: `ExtractionError.noSuchPath`.
    public func file(at path: ByteString, followingLast: Bool = true) throws(ExtractionError) -> ImageEntry {
        guard let found = tree.locate(path, followingLast: followingLast) else { throw .noSuchPath(path) }
        return ImageEntry(tree, found.inode, found.path)
    }

    /// The entries of a directory, by name in ascending byte order.
    ///
    /// - Throws: `ExtractionError.noSuchPath`, `.isNotDirectory`.
    public func files(in path: ByteString) throws(ExtractionError) -> [ImageEntry] {
        guard let found = tree.locate(path, followingLast: true) else { throw .noSuchPath(path) }
        guard tree.isDirectory(found.inode) else { throw .isNotDirectory(path) }
        let prefix = found.path == "/" ? found.path : found.path + "/"
        return tree.sortedEntries(of: found.inode).map { ImageEntry(tree, tree.inode(of: $0), prefix + tree.name(of: $0)) }
    }

    /// Calls `body` with consecutive parts of a regular file, which is verified before the first. The memory is valid only during the call.
    ///
    /// - Parameter path: as for `file`; a link at its end is followed.
    /// - Throws: `ExtractionError.noSuchPath`, `.isDirectory`, `.isNotFile`; `RepositoryError` if the object is missing or damaged; what `body`
    ///   throws.
    public func readFile(_ path: ByteString, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        switch try content(ofFile: path) {
        case .bytes(let bytes): try bytes.bytes.withUnsafeBytes(body)
        case .zeros(var left):
            let zeros = [UInt8](repeating: 0, count: Int(min(left, 1 << 16)))
            while left > 0 {
                let count = min(left, UInt64(zeros.count))
                try zeros.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[..<Int(count)])) }
                left -= count
            }
        case .object(let id):
            let file = try repository.openObject(id)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)
            defer { buffer.deallocate() }
            while true {
                let count = try file.read(into: buffer)
                if count == 0 { return }
                try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
        }
    }

    /// The content of a regular file, verified.
    ///
    /// - Parameter limit: the most bytes; a larger file is refused before it is read.
    /// - Throws: `ExtractionError.tooLarge`; else as above.
    public func readFile(_ path: ByteString, limit: UInt64 = defaultReadLimit) throws -> [UInt8] {
        let size = try file(at: path).size
        guard size <= limit else { throw ExtractionError.tooLarge(path, size: size, limit: limit) }
        var content: [UInt8] = []
        try readFile(path) { part in
            let read = UInt64(content.count) + UInt64(part.count)
            // What the image says of an object's size is not what it has.
            guard read <= limit else { throw ExtractionError.tooLarge(path, size: read, limit: limit) }
            content += part
        }
        return content
    }

    private enum FileContent {
        case bytes(ByteString)
        case zeros(UInt64)
        case object(ObjectID)
    }

    private func content(ofFile path: ByteString) throws(ExtractionError) -> FileContent {
        guard let inode = tree.resolve(path, followingLast: true) else { throw .noSuchPath(path) }
        switch tree.content(of: inode) {
        case .inline(let bytes): return .bytes(bytes)
        case .external(let id, _), .externalWithoutVerity(let id, _): return .object(id)
        case .sparse(let size): return .zeros(size)
        case nil: throw .isDirectory(path)
        default: throw .isNotFile(path)
        }
    }
}
