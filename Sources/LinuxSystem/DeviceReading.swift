public import ComposefsBytes

// Reading what is on the device.
//
// After a failed write the page cache may hold what the device does not: the pages are clean, every reader gets them, and a hash of them
// says nothing of what is left once they are dropped. Here a file is read with O_DIRECT, past the cache. Where the file system cannot do
// that (files with fs-verity, FUSE, tmpfs), its clean pages are dropped first. Dirty pages are written before they are read in either
// case, and an error of that is an error of the read.
extension FileDescriptor {
    /// Opens a regular file below this directory for `readFromDevice`. Symbolic links are not followed; EINVAL for other kinds of files.
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
                    // Devices with larger blocks, and file systems that take the flag and then cannot do it.
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

    /// The whole content of a file from `openOnDevice`, in pieces.
    public borrowing func readFromDevice(_ body: (UnsafeRawBufferPointer) -> Void) throws(SystemError) {
        try withAlignedBuffer(byteCount: 128 << 10) { (buffer) throws(SystemError) in
            var offset: UInt64 = 0
            while true {
                let count = try pread(into: buffer, at: offset)
                if count > 0 { body(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
                offset &+= UInt64(count)
                // A piece that ends within a block ends the file, and behind it O_DIRECT must not ask.
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
