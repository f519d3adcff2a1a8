import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// The content of a regular file of a stored tree, for reading at any offset. What is an object has been verified.
enum StoredFile: RandomAccessBytes {
    case bytes([UInt8])
    case object(OpenFile)
    /// One hole of this size.
    case hole(UInt64)

    /// - Returns: nil if the content is not that of a regular file.
    init?(_ content: Content, in repository: Repository) throws {
        switch content {
        case .inline(let bytes): self = .bytes(bytes.bytes)
        case .external(let id, _), .externalWithoutVerity(let id, _): self = .object(try OpenFile(try repository.openObject(id)))
        case .sparse(let size): self = .hole(size)
        case .blockDevice, .characterDevice, .fifo, .socket, .symbolicLink: return nil
        }
    }

    var byteCount: UInt64 {
        switch self {
        case .bytes(let bytes): bytes.byteCount
        case .object(let file): file.byteCount
        case .hole(let size): size
        }
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        switch self {
        case .bytes(let bytes): return bytes.read(at: offset, into: buffer)
        case .object(let file): return try file.read(at: offset, into: buffer)
        case .hole(let size):
            let count = Int(clamping: min(UInt64(buffer.count), size > offset ? size - offset : 0))
            UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]).initializeMemory(as: UInt8.self, repeating: 0)
            return count
        }
    }

    /// Calls `body` with all of the content, part by part.
    func forEachPart(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var offset: UInt64 = 0
        while true {
            let count = try read(at: offset, into: buffer)
            guard count > 0 else { return }
            try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += UInt64(count)
        }
    }

    /// All of the content. The caller has checked that it is small.
    func all() throws -> [UInt8] {
        var bytes: [UInt8] = []
        try forEachPart { bytes += $0 }
        return bytes
    }
}

extension Content {
    /// The size in bytes of a regular file; nil for other kinds.
    var fileSize: UInt64? {
        switch self {
        case .inline(let bytes): UInt64(bytes.count)
        case .external(_, let size), .externalWithoutVerity(_, let size), .sparse(let size): size
        case .blockDevice, .characterDevice, .fifo, .socket, .symbolicLink: nil
        }
    }
}
