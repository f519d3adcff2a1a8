internal import ComposefsBytes
internal import ComposefsCLinux

extension FileDescriptor {
    private static var nameAttempts: Int { 16 }

    /// Creates a file in this directory, open for reading and writing, that has no name and disappears when it is closed.
    ///
    /// Without O_TMPFILE (old kernels, NFS, some FUSE file systems), the file is created under a name that is removed at once.
    public borrowing func openUnnamed(mode: UInt32 = 0o600) throws(SystemError) -> FileDescriptor {
        do throws(SystemError) {
            return try openTemporary(mode: mode)
        } catch {
            guard error.lacksTemporaryFiles else { throw error }
        }
        for _ in 0..<Self.nameAttempts {
            let name = ".tmp-" + ByteString(Host.randomName(12))
            do throws(SystemError) {
                let file = try open(at: name, [.readWrite, .create, .exclusive, .noFollow], mode: mode)
                try unlink(at: name)
                return file
            } catch {
                guard error.errno == .exists else { throw error }
            }
        }
        throw SystemError(operation: "create a temporary file in", path: kernelPath, errno: .exists)
    }
}

extension SystemError {
    /// Whether opening with O_TMPFILE failed because the kernel or the file system does not support it. Such a kernel treats the call as
    /// opening a directory for writing.
    public var lacksTemporaryFiles: Bool { isUnsupported || errno == .isDirectory || errno == .invalidArgument }
}
