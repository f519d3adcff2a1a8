internal import ComposefsBytes
internal import ComposefsCLinux

/// A descriptor of `/dev/fuse` with a connection to the kernel (linux/fuse.h).
public struct FuseDevice: ~Copyable, Sendable {
    public let descriptor: FileDescriptor

    /// Opens the device; it has no connection before a file system is made with it.
    public init() throws(SystemError) { descriptor = try FileDescriptor.open("/dev/fuse", [.readWrite]) }

    /// Takes over a descriptor that has a connection.
    public init(owning descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

    /// Another descriptor for the same connection, with a queue of its own for requests under way: what is read from it must be answered
    /// through it.
    public borrowing func clone() throws(SystemError) -> FuseDevice {
        let device = try FuseDevice()
        let result = cl_fuse_clone(device.descriptor.raw, descriptor.raw)
        guard result >= 0 else { throw SystemError(operation: "clone", path: "/dev/fuse", errno: Errno(result: result)) }
        return device
    }

    /// Another descriptor for the same open device.
    public borrowing func duplicate() throws(SystemError) -> FuseDevice { FuseDevice(owning: try descriptor.duplicate()) }

    /// The next request, waiting for it; the number of its bytes. Throws `.noDevice` once the file system is unmounted.
    public borrowing func receive(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        let result = cl_read(descriptor.raw, buffer.baseAddress, buffer.count)
        guard result >= 0 else { throw Errno(result: result) }
        return result
    }

    /// Sends a reply, which goes as a whole or not at all. `.noEntry` says that nobody waits for it any more.
    public borrowing func send(_ reply: UnsafeRawBufferPointer) throws(Errno) {
        let result = cl_write(descriptor.raw, reply.baseAddress, reply.count)
        guard result >= 0 else { throw Errno(result: result) }
    }

    /// Gives the kernel an open file to read from by itself (Linux 6.9, needs CAP_SYS_ADMIN); returns the number by which
    /// replies name it.
    public borrowing func openBacking(_ file: borrowing FileDescriptor) throws(Errno) -> Int32 {
        let result = cl_fuse_backing_open(descriptor.raw, file.raw)
        guard let number = Int32(exactly: result), number > 0 else { throw Errno(result: result < 0 ? result : -5) }
        return number
    }

    public borrowing func closeBacking(_ number: Int32) { _ = cl_fuse_backing_close(descriptor.raw, number) }
}

/// A pipe that the contents of files are moved through without copying them.
public struct SplicePipe: ~Copyable, Sendable {
    private let read: FileDescriptor
    private let write: FileDescriptor
    /// Bytes that it holds.
    public let capacity: Int

    /// - Parameter capacity: what is wanted; the kernel may give less.
    public init(capacity: Int) throws(SystemError) {
        let pipe = try FileDescriptor.pipe()
        let result = cl_pipe_capacity(pipe.write.raw, Int32(clamping: capacity))
        self.capacity = result > 0 ? result : 65536
        read = pipe.read
        write = pipe.write
    }

    /// Sends `header` and after it `count` bytes of a file from an offset on, as one reply. False, with nothing sent, where the file had
    /// fewer bytes or the kernel does not take it; the pipe must not be used again then.
    public borrowing func send(
        _ header: UnsafeRawBufferPointer, _ file: borrowing FileDescriptor, at offset: Int64, count: Int, to device: borrowing FuseDevice
    ) -> Bool {
        guard cl_write(write.raw, header.baseAddress, header.count) == header.count else { return false }
        var moved = 0
        while moved < count {
            let result = cl_splice(file.raw, offset + Int64(moved), write.raw, count - moved)
            guard result > 0 else { return false }
            moved += result
        }
        return cl_splice(read.raw, -1, device.descriptor.raw, header.count + count) == header.count + count
    }
}
