public import ComposefsBytes
public import ComposefsLinuxSystem

/// The reason why an image could not be served. Each description is one line, with advice if the solution is not obvious.
public enum FuseError: Error, Sendable, Hashable, CustomStringConvertible {
    /// `/dev/fuse` cannot be opened.
    case noDevice(SystemError)
    /// The process may not mount, and `fusermount3` is not available to mount for it.
    case noRights(SystemError)
    /// `fusermount3` refused and wrote the reason to standard error; the value is its exit status.
    case helper(Int32)
    /// The kernel's protocol version is too old.
    case kernelTooOld(major: UInt32, minor: UInt32)
    /// A message from the device violates the protocol.
    case protocolBroken(String)
    case mount(SystemError, kernel: String)
    /// The mount would cover a directory that the server itself needs.
    case coversNeeded(ByteString)
    /// The process that served the file system at the directory has ended.
    case notServed(ByteString)
    /// The mount needs attributes that `fusermount3` does not grant to unprivileged users.
    case attributesNeedRoot(SystemError)
    case notMounted(ByteString)
    case busy(ByteString)
    case system(SystemError)

    public var description: String {
        switch self {
        case .noDevice(let error):
            switch error.errno {
            case .noEntry, .noDevice, .noDeviceOrAddress: "this kernel has no FUSE (\(error)): load the fuse module, or create /dev/fuse"
            case .accessDenied, .notPermitted: "this user may not use FUSE (\(error)): /dev/fuse should have mode 0666"
            default: error.description
            }
        case .noRights(let error):
            "mounting with FUSE needs fusermount3 (Debian: fuse3), or root privileges, or a user and mount namespace (unshare -Urm): \(error)"
        case .helper(let status): "fusermount3 failed with exit status \(status)"
        case .kernelTooOld(let major, let minor):
            "the kernel has FUSE version \(major).\(minor); at least 7.31 (Linux 5.4) is required"
        case .protocolBroken(let what): "invalid FUSE request from the kernel: \(what)"
        case .mount(let error, let kernel): "the kernel refused the FUSE mount: \(error)" + (kernel.isEmpty ? "" : " (\(kernel))")
        case .coversNeeded(let path): "\(path): cannot mount a FUSE image here: its server needs this directory"
        case .notServed(let path): "\(path): the process that served this mount has ended"
        case .attributesNeedRoot(let error):
            "only root can mount FUSE with effective set-user-ID programs and device nodes, or with options other than noexec and noatime: "
                + "\(error)"
        case .notMounted(let path): "\(path): not mounted"
        case .busy(let path): "\(path): the mount is in use: stop the processes that use it, or unmount it lazily"
        case .system(let error): error.description
        }
    }
}
