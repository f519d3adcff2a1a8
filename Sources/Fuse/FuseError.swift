public import ComposefsBytes
public import ComposefsLinuxSystem

/// Why an image could not be served. Every description is one line that says what to do where that is not obvious.
public enum FuseError: Error, Sendable, Hashable, CustomStringConvertible {
    /// `/dev/fuse` cannot be opened.
    case noDevice(SystemError)
    /// The process may neither mount here nor is there `fusermount3` to do it for it.
    case noRights(SystemError)
    /// `fusermount3` refused; it has said why on standard error. Its exit status.
    case helper(Int32)
    /// The kernel's protocol version.
    case kernelTooOld(major: UInt32, minor: UInt32)
    /// What came over the device is not the protocol.
    case protocolBroken(String)
    case mount(SystemError, kernel: String)
    /// A directory that the server itself looks into, which would wait for itself.
    case coversNeeded(ByteString)
    /// What is mounted at the directory was served by a process that has ended.
    case notServed(ByteString)
    /// The mount is to have other attributes than `fusermount3` gives to users that are not root.
    case attributesNeedRoot(SystemError)
    case notMounted(ByteString)
    case busy(ByteString)
    case system(SystemError)

    public var description: String {
        switch self {
        case .noDevice(let error):
            switch error.errno {
            case .noEntry, .noDevice, .noDeviceOrAddress: "this kernel has no FUSE (\(error)): load the module fuse, or make /dev/fuse"
            case .accessDenied, .notPermitted: "this user may not use FUSE (\(error)): /dev/fuse should have mode 0666"
            default: error.description
            }
        case .noRights(let error):
            "mounting with FUSE needs fusermount3 (Debian: fuse3), or root's rights, or a user and mount namespace (unshare -Urm): \(error)"
        case .helper(let status): "fusermount3 did not mount: exit status \(status)"
        case .kernelTooOld(let major, let minor):
            "the kernel's FUSE is version \(major).\(minor), 7.31 (Linux 5.4) is the oldest that is served"
        case .protocolBroken(let what): "the kernel's FUSE request is broken: \(what)"
        case .mount(let error, let kernel): "the kernel does not mount FUSE: \(error)" + (kernel.isEmpty ? "" : " (\(kernel))")
        case .coversNeeded(let path): "\(path): cannot be covered by an image that is served with FUSE: its server needs what is there"
        case .notServed(let path): "\(path): the process that served what is mounted there has ended"
        case .attributesNeedRoot(let error):
            "only root can mount FUSE so that set-user-ID programs and device nodes have an effect, or with more than noexec and noatime: "
                + "\(error)"
        case .notMounted(let path): "\(path): nothing is mounted there"
        case .busy(let path): "\(path): the mount is in use; end what uses it or unmount it lazily"
        case .system(let error): error.description
        }
    }
}
