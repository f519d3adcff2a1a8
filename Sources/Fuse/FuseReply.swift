import ComposefsEROFS
import ComposefsFileTree

/// Builds a reply in a thread's buffer: fields in order, in the machine's byte order.
struct FuseReply {
    private let buffer: UnsafeMutableRawBufferPointer
    /// The number of bytes so far, including the header.
    private(set) var count = FuseProtocol.replyHeaderSize

    /// - Parameter buffer: Must hold any reply, except those whose size the request chooses; these use `available`.
    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    /// The number of bytes that still fit.
    var available: Int { buffer.count - count }

    /// The rest of the buffer, for a caller that fills it directly and then calls `advance`.
    var rest: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: buffer[count...]) }

    mutating func advance(_ length: Int) { count = min(count + max(length, 0), buffer.count) }

    /// Discards everything after the header.
    mutating func clear() { count = FuseProtocol.replyHeaderSize }

    mutating func rewind(to length: Int) { count = max(FuseProtocol.replyHeaderSize, min(length, count)) }

    mutating func integer(_ value: some FixedWidthInteger & BitwiseCopyable) {
        let size = MemoryLayout.size(ofValue: value)
        guard available >= size else { return }
        buffer.storeBytes(of: value, toByteOffset: count, as: type(of: value))
        count += size
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard available >= bytes.count else { return }
        UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    mutating func zeros(_ length: Int) {
        guard length > 0, available >= length else { return }
        UnsafeMutableRawBufferPointer(rebasing: buffer[count..<(count + length)]).initializeMemory(as: UInt8.self, repeating: 0)
        count += length
    }

    /// Writes struct fuse_out_header and returns the finished reply.
    ///
    /// - Parameters:
    ///   - error: An error number, or 0.
    ///   - following: The number of bytes that are sent after these.
    mutating func finish(_ unique: UInt64, error: Int32 = 0, following: Int = 0) -> UnsafeRawBufferPointer {
        if error != 0 { clear() }
        buffer.storeBytes(of: UInt32(clamping: count + following), toByteOffset: 0, as: UInt32.self)
        buffer.storeBytes(of: 0 &- error, toByteOffset: 4, as: Int32.self)
        buffer.storeBytes(of: unique, toByteOffset: 8, as: UInt64.self)
        return UnsafeRawBufferPointer(rebasing: buffer[..<count])
    }

    // MARK: Structures

    /// struct fuse_attr.
    mutating func attributes(_ inode: ErofsInode, node: UInt64) {
        integer(node)
        integer(inode.size)
        integer(inode.size.blocksOf512)
        // The format has only the modification time. As in EROFS, it is used for all three times.
        for _ in 0..<3 { integer(inode.modified.seconds) }
        for _ in 0..<3 { integer(inode.modified.nanoseconds) }
        integer(inode.mode)
        integer(inode.links)
        integer(inode.uid)
        integer(inode.gid)
        integer(inode.deviceNumber)
        integer(4096 as UInt32)
        integer(0 as UInt32)
    }

    /// struct fuse_entry_out. A node of 0 means that the name does not exist, which the kernel may cache too.
    mutating func entry(_ inode: ErofsInode?, node: UInt64, number: UInt64) {
        integer(node)
        integer(0 as UInt64)
        integer(FuseProtocol.validity)
        integer(FuseProtocol.validity)
        integer(0 as UInt32)
        integer(0 as UInt32)
        if let inode { attributes(inode, node: number) } else { zeros(FuseProtocol.attributesSize) }
    }

    /// struct fuse_dirent. Returns false, with nothing written, if it does not fit into `limit` bytes of the reply.
    mutating func directoryEntry(_ name: UnsafeRawBufferPointer, _ inode: ErofsInode, number: UInt64, next: UInt64, limit: Int) -> Bool {
        let size = (24 + name.count + 7) & ~7
        guard count + size <= limit, available >= size else { return false }
        integer(number)
        integer(next)
        integer(UInt32(clamping: name.count))
        integer(inode.mode >> 12)
        append(name)
        zeros(size - 24 - name.count)
        return true
    }
}

extension UInt64 {
    /// The size in units of 512 bytes on a file system with 4 KiB blocks.
    fileprivate var blocksOf512: UInt64 { ((self >> 12) + (self & 4095 == 0 ? 0 : 1)) << 3 }
}
