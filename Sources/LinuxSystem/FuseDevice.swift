internal import ComposefsBytes
internal import ComposefsCLinux

/// A descriptor of `/dev/fuse`, connected to the kernel (linux/fuse.h).
public struct FuseDevice: ~Copyable, Sendable {
    public let descriptor: FileDescriptor

    /// Opens the device. It has no connection until a file system is created with it.
    public init() throws(SystemError) { descriptor = try FileDescriptor.open("/dev/fuse", [.readWrite]) }

    /// Takes ownership of a connected descriptor.
    public init(owning descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

    /// Returns another descriptor for the same connection with its own queue of pending requests. A request must be answered through the
    /// descriptor from which it was read.
    public borrowing func clone() throws(SystemError) -> FuseDevice {
        let device = try FuseDevice()
        let result = cl_fuse_clone(device.descriptor.raw, descriptor.raw)
        guard result >= 0 else { throw SystemError(operation: "clone", path: "/dev/fuse", errno: Errno(result: result)) }
        return device
    }

    /// Returns another descriptor for the same open device.
    public borrowing func duplicate() throws(SystemError) -> FuseDevice { FuseDevice(owning: try descriptor.duplicate()) }

    /// Waits for the next request and returns its size in bytes. Throws `.noDevice` once the file system is unmounted.
    public borrowing func receive(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        let result = cl_read(descriptor.raw, buffer.baseAddress, buffer.count)
        guard result >= 0 else { throw Errno(result: result) }
        return result
    }

    /// Sends a complete reply. `.noEntry` means that the request was interrupted and needs no reply.
    public borrowing func send(_ reply: UnsafeRawBufferPointer) throws(Errno) {
        let result = cl_write(descriptor.raw, reply.baseAddress, reply.count)
        guard result >= 0 else { throw Errno(result: result) }
    }

    /// Registers an open file that the kernel reads directly (Linux 6.9; needs CAP_SYS_ADMIN). Returns the number that identifies it in
    /// replies.
    public borrowing func openBacking(_ file: borrowing FileDescriptor) throws(Errno) -> Int32 {
        let result = cl_fuse_backing_open(descriptor.raw, file.raw)
        guard let number = Int32(exactly: result), number > 0 else { throw Errno(result: result < 0 ? result : -5) }
        return number
    }

    public borrowing func closeBacking(_ number: Int32) { _ = cl_fuse_backing_close(descriptor.raw, number) }
}

/// A pipe that moves file contents to the kernel without copying.
public struct SplicePipe: ~Copyable, Sendable {
    private let read: FileDescriptor
    private let write: FileDescriptor
    /// The capacity in bytes.
    public let capacity: Int

    /// - Parameter capacity: The requested capacity in bytes; the kernel may grant less.
    public init(capacity: Int) throws(SystemError) {
        let pipe = try FileDescriptor.pipe()
        let result = cl_pipe_capacity(pipe.write.raw, Int32(clamping: capacity))
        self.capacity = result > 0 ? result : 65536
        read = pipe.read
        write = pipe.write
    }

    /// Sends `header` and `count` bytes of a file from an offset as one reply. Returns false, with nothing sent, if the file has fewer
    /// bytes or the kernel refuses the splice; the pipe must not be used after that.
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
