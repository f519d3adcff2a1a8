import ComposefsEROFS
import ComposefsFileTree

/// A reply being written into a thread's buffer: fields one after the other, in the machine's byte order.
struct FuseReply {
    private let buffer: UnsafeMutableRawBufferPointer
    /// Bytes so far, the header's included.
    private(set) var count = FuseProtocol.replyHeaderSize

    /// The buffer must be longer than any reply but those that are asked for by size, which look at `available`.
    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    /// Bytes that still fit.
    var available: Int { buffer.count - count }

    /// What follows, for who writes it himself and then calls `advance`.
    var rest: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: buffer[count...]) }

    mutating func advance(_ length: Int) { count = min(count + max(length, 0), buffer.count) }

    /// Forgets what was written behind the header.
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

    /// struct fuse_out_header, written last; the reply as it goes to the kernel. `error` is an error number or 0; `following` counts bytes
    /// that are sent after these.
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
        // The format keeps one time; EROFS shows it as all three.
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

    /// struct fuse_entry_out. A node of 0 says that there is no such name, which the kernel may remember too.
    mutating func entry(_ inode: ErofsInode?, node: UInt64, number: UInt64) {
        integer(node)
        integer(0 as UInt64)
        integer(FuseProtocol.validity)
        integer(FuseProtocol.validity)
        integer(0 as UInt32)
        integer(0 as UInt32)
        if let inode { attributes(inode, node: number) } else { zeros(FuseProtocol.attributesSize) }
    }

    /// struct fuse_dirent; false, with nothing written, where it does not fit into `limit` bytes of reply.
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
    /// Size in units of 512 bytes on a file system with blocks of 4 KiB.
    fileprivate var blocksOf512: UInt64 { ((self >> 12) + (self & 4095 == 0 ? 0 : 1)) << 3 }
}
