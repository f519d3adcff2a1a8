public import ComposefsBytes

// Reads what is on the device instead of what is in the page cache.
//
// After a failed write, the page cache may hold data that the device does not: the pages are clean, every reader gets them, and a hash of
// them proves nothing about the file after they are dropped. These functions read with O_DIRECT, past the cache. If the file system does
// not support that (files with fs-verity, FUSE, tmpfs), they drop the file's clean pages first. In either case the kernel writes dirty
// pages before it reads them, and an error of that write is an error of the read.
extension FileDescriptor {
    /// Opens a regular file below this directory for `readFromDevice`. Does not follow symbolic links. EINVAL for other kinds of files.
    public borrowing func openOnDevice(at path: ByteString) throws(SystemError) -> FileDescriptor {
        let file = try open(at: path, [.readOnly, .noFollow, .nonBlocking])
        guard try file.status().kind == .regular else { throw SystemError("open", path, .invalidArgument) }
        file.adviseDontNeed()
        do throws(SystemError) {
            let direct = try open(at: path, [.readOnly, .noFollow, .nonBlocking, .direct])
            var isReadable = true
            try withAlignedBuffer(byteCount: 4096) { (buffer) throws(SystemError) in
                do throws(SystemError) {
                    _ = try direct.pread(into: buffer, at: 0)
                } catch {
                    // EINVAL comes from devices with larger blocks and from file systems that accept the flag but do not support it.
                    guard error.errno == .invalidArgument else { throw error }
                    isReadable = false
                }
            }
            return isReadable ? direct : file
        } catch {
            guard error.errno == .invalidArgument else { throw error }
            return file
        }
    }

    /// Passes the whole content of a file from `openOnDevice` to `body`, in parts.
    public borrowing func readFromDevice(_ body: (UnsafeRawBufferPointer) -> Void) throws(SystemError) {
        try withAlignedBuffer(byteCount: 128 << 10) { (buffer) throws(SystemError) in
            var offset: UInt64 = 0
            while true {
                let count = try pread(into: buffer, at: offset)
                if count > 0 { body(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
                offset &+= UInt64(count)
                // A part that ends within a block ends the file. O_DIRECT must not read from an unaligned offset after it.
                if count == 0 || count % 4096 != 0 { return }
            }
        }
    }

    private borrowing func withAlignedBuffer(
        byteCount: Int, _ body: (UnsafeMutableRawBufferPointer) throws(SystemError) -> Void
    ) throws(SystemError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        try body(buffer)
    }
}
