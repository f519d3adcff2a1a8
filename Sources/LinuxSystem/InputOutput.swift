public import ComposefsBytes
internal import ComposefsCLinux
internal import Glibc

/// The base of a seek offset.
public enum SeekOrigin: Int32, Sendable {
    case start = 0
    case current = 1
    case end = 2
}

// MARK: - Reading in parts

/// The parts of a file, or of a range of it, in order. Each one is in the same buffer, until the next one is read.
package struct FileParts {
    private let buffer: UnsafeMutableRawBufferPointer
    private let end: UInt64
    /// The end of the last part: the offset in bytes of what is read next.
    package private(set) var offset: UInt64

    /// - Parameters:
    ///   - buffer: not empty.
    ///   - offset: the offset of the range in bytes.
    ///   - end: the end of the range; the file may end before it.
    package init(into buffer: UnsafeMutableRawBufferPointer, from offset: UInt64 = 0, to end: UInt64 = .max) {
        precondition(buffer.count > 0 && offset <= end, "parts are read into a buffer, from a range")
        self.buffer = buffer
        self.offset = offset
        self.end = end
    }

    /// Reads the next part, at most the buffer's size. Nil at the end of the range or of the file.
    package mutating func next(of file: borrowing FileDescriptor) throws(SystemError) -> UnsafeRawBufferPointer? {
        guard offset < end else { return nil }
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(Int(clamping: end - offset)))
        let count = try file.pread(into: part, at: offset)
        guard count > 0 else { return nil }
        offset += UInt64(count)
        return UnsafeRawBufferPointer(rebasing: part[..<count])
    }
}

// MARK: - Reading and writing

extension FileDescriptor {
    /// Reads available bytes, at most the buffer's size. Returns 0 at the end.
    public borrowing func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        let result = cl_read(raw, buffer.baseAddress, buffer.count)
        guard result >= 0 else { throw SystemError("read", result, at: raw, nil) }
        return result
    }

    /// Reads at an offset in bytes, at most the buffer's size. Returns 0 at the end. The position does not change.
    public borrowing func pread(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        guard let position = Int64(exactly: offset) else { return 0 }
        let result = cl_pread(raw, buffer.baseAddress, buffer.count, position)
        guard result >= 0 else { throw SystemError("read", result, at: raw, nil) }
        return result
    }

    /// Reads from an offset in bytes until the buffer is full or the file ends.
    public borrowing func preadFully(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            let length = try pread(into: rest, at: offset &+ UInt64(filled))
            if length == 0 { break }
            filled += length
        }
        return filled
    }

    /// Reads from the current position to the end. Throws EFBIG after `limit` bytes if there are more.
    public borrowing func readAll(limit: Int) throws(SystemError) -> [UInt8] {
        // The file's size is only a hint: /proc reports 0, and a file may grow.
        let status = try status()
        let hint = status.kind == .regular ? Int(clamping: status.size) : 0
        guard hint <= limit else { throw SystemError(operation: "read", path: kernelPath, errno: .fileTooLarge) }
        var all: [UInt8] = []
        var chunk = min(max(hint &+ 1, 4096), 1 << 20)
        while true {
            let raw = raw
            var result = 0
            let start = all.count
            // One more byte than the limit shows that the file is too large.
            let wanted = min(chunk, limit &- start &+ 1)
            let part = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, count in
                result = cl_read(raw, buffer.baseAddress, wanted)
                count = max(result, 0)
            }
            guard result >= 0 else { throw SystemError("read", result, at: raw, nil) }
            if result == 0 { return all }
            if all.isEmpty { all = part } else { all.append(contentsOf: part) }
            guard all.count <= limit else { throw SystemError(operation: "read", path: kernelPath, errno: .fileTooLarge) }
            chunk = min(max(chunk, all.count), 1 << 20)
        }
    }

    /// Writes as many bytes as the kernel accepts, at least one of a non-empty buffer.
    public borrowing func write(_ buffer: UnsafeRawBufferPointer) throws(SystemError) -> Int {
        let result = Kernel.call(.write, raw, count: buffer.count) { cl_write(raw, buffer.baseAddress, buffer.count) }
        guard result >= 0 else { throw SystemError("write", result, at: raw, nil) }
        return result
    }

    /// Writes all bytes.
    public borrowing func writeAll(_ buffer: UnsafeRawBufferPointer) throws(SystemError) {
        var rest = buffer
        while !rest.isEmpty {
            let written = try write(rest)
            guard written > 0 else { throw SystemError(operation: "write", path: kernelPath, errno: .noSpace) }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    /// Writes all bytes.
    public borrowing func writeAll(_ bytes: [UInt8]) throws(SystemError) {
        let raw = raw
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            var rest = buffer
            while !rest.isEmpty {
                let result = Kernel.call(.write, raw, count: rest.count) { cl_write(raw, rest.baseAddress, rest.count) }
                guard result > 0 else {
                    failure = SystemError("write", result == 0 ? -Int(Errno.noSpace.rawValue) : result, at: raw, nil)
                    return
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[result...])
            }
        }
        if let failure { throw failure }
    }

    /// Writes all buffers in order, with as few system calls as possible.
    public borrowing func writeAll(_ buffers: [UnsafeRawBufferPointer]) throws(SystemError) {
        var vectors = buffers.filter { !$0.isEmpty }.map { cl_iovec(base: $0.baseAddress, length: $0.count) }
        var first = 0
        while first < vectors.count {
            let raw = raw
            let count = vectors[first...].reduce(0) { $0 &+ $1.length }
            let result = vectors.withUnsafeBufferPointer { all in
                let rest = UnsafeBufferPointer(rebasing: all[first...])
                return Kernel.call(.write, raw, count: count) { cl_writev(raw, rest.baseAddress, rest.count) }
            }
            guard result > 0 else {
                throw SystemError("write", result == 0 ? -Int(Errno.noSpace.rawValue) : result, at: raw, nil)
            }
            var written = result
            while first < vectors.count, written >= vectors[first].length {
                written -= vectors[first].length
                first += 1
            }
            if written > 0, first < vectors.count {
                vectors[first].base = vectors[first].base?.advanced(by: written)
                vectors[first].length -= written
            }
        }
    }

    /// Writes all bytes at an offset in bytes. The position does not change.
    ///
    /// - Parameter leavesCache: Whether the page cache should drop the bytes once they are written (RWF_DONTCACHE, Linux 6.14). The flag
    ///   has no effect if the kernel or the file system does not support it.
    public borrowing func pwriteAll(
        _ buffer: UnsafeRawBufferPointer, at offset: UInt64, leavesCache: Bool = false
    ) throws(SystemError) {
        guard var position = Int64(exactly: offset) else {
            throw SystemError(operation: "write", path: kernelPath, errno: .fileTooLarge)
        }
        // An incomplete block at the end remains in the cache: the write that completes it would have to read it again.
        let lastBlock = (offset &+ UInt64(buffer.count)) % Self.cacheBlockSize
        var uncached = leavesCache ? buffer.count - min(buffer.count, Int(lastBlock)) : 0
        var rest = buffer
        while !rest.isEmpty {
            let result =
                if uncached > 0 {
                    Kernel.call(.write, raw, count: uncached) { cl_pwrite_uncached(raw, rest.baseAddress, uncached, position) }
                } else {
                    Kernel.call(.write, raw, count: rest.count) { cl_pwrite(raw, rest.baseAddress, rest.count, position) }
                }
            guard result > 0 else {
                throw SystemError("write", result == 0 ? -Int(Errno.noSpace.rawValue) : result, at: raw, nil)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[result...])
            uncached = max(0, uncached - result)
            position = position &+ Int64(result)
        }
    }

    /// The unit that file systems read to complete it, in bytes: no usual file system has larger blocks.
    private static var cacheBlockSize: UInt64 { 4096 }

    /// Sets the position and returns it, in bytes from the start.
    @discardableResult
    public borrowing func seek(to offset: Int64, from origin: SeekOrigin = .start) throws(SystemError) -> UInt64 {
        let result = cl_lseek(raw, offset, origin.rawValue)
        guard result >= 0 else { throw SystemError("seek", result, at: raw, nil) }
        return UInt64(result)
    }

    /// The offset of the next data at or after an offset; nil if only a hole follows. A file system without holes has data everywhere.
    public borrowing func nextData(from offset: UInt64) throws(SystemError) -> UInt64? {
        guard let position = Int64(exactly: offset) else { return nil }
        // SEEK_DATA (lseek(2)).
        let result = cl_lseek(raw, position, 3)
        if result >= 0 { return UInt64(result) }
        if Errno(result: result) == .noDeviceOrAddress { return nil }
        throw SystemError("seek", result, at: raw, nil)
    }

    /// The offset of the next hole at or after an offset, which is before the end of the file; the end of a file is a hole.
    public borrowing func nextHole(from offset: UInt64) throws(SystemError) -> UInt64 {
        // SEEK_HOLE (lseek(2)).
        let result = cl_lseek(raw, Int64(clamping: offset), 4)
        guard result >= 0 else { throw SystemError("seek", result, at: raw, nil) }
        return UInt64(result)
    }

    /// Sets the file's size in bytes.
    public borrowing func truncate(to size: UInt64) throws(SystemError) {
        let result = Kernel.call(.truncate, raw, count: Int(clamping: size)) { cl_ftruncate(raw, Int64(clamping: size)) }
        guard result >= 0 else { throw SystemError("truncate", result, at: raw, nil) }
    }

    /// Allocates space for `size` bytes and extends the file to that size.
    public borrowing func allocate(_ size: UInt64) throws(SystemError) {
        let result = Kernel.call(.allocate, raw, count: Int(clamping: size)) { cl_fallocate(raw, 0, 0, Int64(clamping: size)) }
        guard result >= 0 else { throw SystemError("allocate", result, at: raw, nil) }
    }

    /// Shares all content of another file of the same file system (FICLONE), without copying.
    public borrowing func cloneContent(from source: borrowing FileDescriptor) throws(SystemError) {
        let other = source.raw
        let result = Kernel.call(.clone, raw, other: other) { cl_ficlone(raw, other) }
        guard result >= 0 else { throw SystemError("clone into", result, at: raw, nil) }
    }

    /// Shares a range of another file of the same file system (FICLONERANGE), without copying. Offsets and count are multiples of the block size.
    public borrowing func cloneRange(
        from source: borrowing FileDescriptor, at offset: UInt64, to target: UInt64, count: UInt64
    ) throws(SystemError) {
        let other = source.raw
        let result = Kernel.call(.clone, raw, other: other, count: Int(clamping: count)) {
            cl_ficlonerange(raw, other, offset, count, target)
        }
        guard result >= 0 else { throw SystemError("clone into", result, at: raw, nil) }
    }

    /// Copies up to `count` bytes between offsets inside the kernel. Returns the number of bytes copied, 0 at the end of the source.
    public borrowing func copyRange(
        from source: borrowing FileDescriptor, at offset: UInt64, to target: UInt64, count: Int
    ) throws(SystemError) -> Int {
        guard var from = Int64(exactly: offset), var to = Int64(exactly: target) else { return 0 }
        let other = source.raw
        let result = Kernel.call(.copyRange, raw, other: other, count: count) {
            cl_copy_file_range(other, &from, raw, &to, max(count, 0))
        }
        guard result >= 0 else { throw SystemError("copy into", result, at: raw, nil) }
        return result
    }

    /// Starts to write the modified pages of a range to the device and does not wait for them (sync_file_range(2) with SYNC_FILE_RANGE_WRITE), so that
    /// a sync that follows has less to do. A hint: that sync reports what fails.
    public borrowing func startWriteback(at offset: UInt64, count: UInt64) {
        _ = cl_start_writeback(raw, Int64(clamping: offset), Int64(clamping: count))
    }

    /// Tells the kernel that the file will be read sequentially.
    public borrowing func adviseSequential() { _ = cl_fadvise(raw, 0, 0, 2) }

    /// Tells the kernel that the cached pages of this file are no longer needed.
    public borrowing func adviseDontNeed() { _ = cl_fadvise(raw, 0, 0, 4) }

    /// Waits until input is available, or the end. For a FIFO, the end counts only after its first writer.
    ///
    /// - Returns: False if nothing arrived within `milliseconds`.
    public borrowing func waitForInput(milliseconds: Int32) throws(SystemError) -> Bool {
        var poll = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        let count = Glibc.poll(&poll, 1, milliseconds)
        if count >= 0 { return count > 0 }
        let errno = Errno(rawValue: Glibc.errno)
        guard errno == .interrupted else { throw SystemError(operation: "poll", path: kernelPath, errno: errno) }
        return false
    }
}

/// Whether all bytes are zero. Fast even in unoptimised builds.
public func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool { cl_is_zero(bytes.baseAddress, bytes.count) != 0 }

// MARK: - Durability and locks

/// The kind of a lock on an open file (flock(2)). The open file holds the lock, not the process.
public enum LockKind: Int32, Sendable {
    case shared = 1
    case exclusive = 2
}

extension FileDescriptor {
    /// Makes data and metadata of this file durable; for a directory, its entries.
    public borrowing func sync() throws(SystemError) {
        let result = Kernel.call(.fsync, raw) { cl_fsync(raw) }
        guard result >= 0 else { throw SystemError("sync", result, at: raw, nil) }
    }

    /// Makes the data and size of this file durable.
    public borrowing func syncData() throws(SystemError) {
        let result = Kernel.call(.fdatasync, raw) { cl_fdatasync(raw) }
        guard result >= 0 else { throw SystemError("sync", result, at: raw, nil) }
    }

    /// Makes the name of this directory durable: syncs its parent, or the file system if the parent cannot be read.
    public borrowing func syncName() throws(SystemError) {
        let parent: FileDescriptor
        do throws(SystemError) {
            parent = try open(at: "..", [.readOnly, .directory])
        } catch {
            guard error.errno == .accessDenied else { throw error }
            return try syncFileSystem()
        }
        try parent.sync()
    }

    /// Makes everything on this file's file system durable.
    public borrowing func syncFileSystem() throws(SystemError) {
        let result = Kernel.call(.syncfs, raw) { cl_syncfs(raw) }
        guard result >= 0 else { throw SystemError("sync the file system of", result, at: raw, nil) }
    }

    /// Locks the file. Returns false if another open file holds the lock and `wait` is false. Changing the kind of a held lock is not
    /// atomic.
    @discardableResult
    public borrowing func lock(_ kind: LockKind, wait: Bool = true) throws(SystemError) -> Bool {
        let result = cl_flock(raw, kind.rawValue, wait ? 1 : 0)
        if result == 0 { return true }
        if !wait, Errno(result: result) == .tryAgain { return false }
        throw SystemError("lock", result, at: raw, nil)
    }

    public borrowing func unlock() throws(SystemError) {
        let result = cl_flock(raw, 8, 1)
        guard result >= 0 else { throw SystemError("unlock", result, at: raw, nil) }
    }
}

/// A file that can be read at any offset, from any thread.
public final class OpenFile: RandomAccessBytes, Sendable {
    public let descriptor: FileDescriptor
    /// The size in bytes when the file was opened.
    public let byteCount: UInt64

    /// Takes ownership of an open file.
    public init(_ descriptor: consuming FileDescriptor) throws(SystemError) {
        byteCount = try descriptor.status().size
        self.descriptor = descriptor
    }

    public convenience init(_ path: ByteString) throws(SystemError) {
        try self.init(try FileDescriptor.open(path, .readOnly))
    }

    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        try descriptor.preadFully(into: buffer, at: offset)
    }
}
