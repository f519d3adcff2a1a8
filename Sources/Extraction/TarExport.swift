public import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsRepository

extension ImageTree {
    /// Writes the tree as one tar archive, from beginning to end: the same tree gives the same bytes. Contents are verified; after an error the
    /// archive has no end.
    ///
    /// Names are relative to the start, whose own entry comes first: `./` for a directory. A file with several names is an entry at the first of them,
    /// and a hard link at the others.
    ///
    /// - Parameters:
    ///   - name: the name of a start that is not a directory.
    ///   - write: takes consecutive bytes. The memory is valid only during the call.
    /// - Returns: the paths of sockets, which an archive cannot hold.
    /// - Throws: `RepositoryError`, `ExtractionError`, and what `write` throws.
    public func writeTar(named name: ByteString = "file", _ write: (UnsafeRawBufferPointer) throws -> Void) throws -> [ByteString] {
        var sockets: [ByteString] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
        defer { buffer.deallocate() }
        var hasher = VerityHasher(repository.algorithm)
        var first: [FileTree.InodeID: ByteString] = [:]
        func add(_ path: ByteString, _ inode: FileTree.InodeID) throws {
            var entry = TarWriter.Entry(path: path, metadata: tree.metadata(of: inode), type: UInt8(ascii: "0"))
            guard let content = tree.content(of: inode) else {
                entry.type = UInt8(ascii: "5")
                entry.path = path + "/"
                return try put(try TarWriter.header(entry))
            }
            if tree.linkCount(of: inode) > 1 {
                if let target = first[inode] {
                    entry.type = UInt8(ascii: "1")
                    entry.link = target
                    // The attributes are those of the first name.
                    entry.metadata.setExtendedAttributes([])
                    return try put(try TarWriter.header(entry))
                }
                first[inode] = path
            }
            switch content {
            case .inline(let bytes):
                entry.size = UInt64(bytes.count)
                try put(try TarWriter.header(entry) + bytes.bytes + TarWriter.padding(entry.size))
            case .external(let id, let size), .externalWithoutVerity(let id, let size):
                entry.size = size
                try put(try TarWriter.header(entry))
                let object = try VerifiedObject(id, size: size, in: repository)
                try object.read(buffer, &hasher) { bytes, hole in
                    try hole > 0 ? zeros(hole) : write(bytes)
                }
                try put(TarWriter.padding(size))
            case .sparse(let size):
                entry.size = size
                try put(try TarWriter.header(entry))
                try zeros(size)
                try put(TarWriter.padding(size))
            case .symbolicLink(let target):
                entry.type = UInt8(ascii: "2")
                entry.link = target
                try put(try TarWriter.header(entry))
            case .characterDevice(let device), .blockDevice(let device):
                entry.type = UInt8(ascii: content.kind == .blockDevice ? "4" : "3")
                entry.device = device
                try put(try TarWriter.header(entry))
            case .fifo:
                entry.type = UInt8(ascii: "6")
                try put(try TarWriter.header(entry))
            case .socket:
                sockets.append(path)
                first[inode] = nil
            }
        }
        func put(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }
        func zeros(_ count: UInt64) throws {
            var left = count
            let none = [UInt8](repeating: 0, count: Int(min(count, 1 << 16)))
            while left > 0 {
                let part = Int(min(left, UInt64(none.count)))
                try none.withUnsafeBytes { try write(UnsafeRawBufferPointer(rebasing: $0[..<part])) }
                left -= UInt64(part)
            }
        }
        try add(isDirectory ? "." : name, start)
        try forEachEntry(add)
        try put(TarWriter.end)
        return sockets
    }
}
