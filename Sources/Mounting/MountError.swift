public import ComposefsBytes
public import ComposefsLinuxSystem

/// The reason why an image could not be mounted or unmounted. Each description is one line, with advice if the solution is not obvious.
public enum MountError: Error, Sendable, Hashable, CustomStringConvertible {
    /// An unknown mount option, one without its value, or options that contradict each other.
    case options(MountOptionFault)
    /// The process may not mount here.
    case noRights(SystemError)
    /// The kernel lacks the file system `erofs` or `overlay`.
    case noFileSystem(String)
    /// The kernel has no mount API (before Linux 5.2, or hidden by a sandbox).
    case noMountAPI
    /// The kernel accepts this image only from a block device, and no loop device is available.
    case noLoopDevice(SystemError)
    /// Files must be verified, but the kernel or the file system of the objects lacks fs-verity.
    case verityUnsupported(objects: ByteString)
    /// The kernel's overlayfs cannot check fs-verity digests.
    case overlayWithoutVerity
    /// The image's file has no fs-verity digest to compare with the required one.
    case imageWithoutVerity(ByteString)
    /// The path is neither a file nor a block device.
    case noImageFile(ByteString)
    /// The image's digest is not the required one; both are in hexadecimal.
    case otherImage(ByteString, found: String, wanted: String)
    /// The kernel refused the image. Its message may be empty.
    case image(SystemError, kernel: String)
    /// The kernel cannot map the image's owners through the user namespace.
    case ownerMap(SystemError)
    /// The kernel refused to combine image and objects. Its message may be empty.
    case overlay(SystemError, kernel: String)
    /// The directory is not a mount point.
    case notMounted(ByteString)
    /// The mount at the directory is not a composefs image: its type and source.
    case notAnImage(ByteString, type: ByteString, source: ByteString)
    /// The mount is in use.
    case busy(ByteString)
    /// The process that served the mount at the directory has ended (FUSE).
    case notServed(ByteString)
    case system(SystemError)

    public var description: String {
        switch self {
        case .options(let fault): fault.description
        case .noRights(let error) where error.operation == "unmount":
            "unmounting needs root privileges (CAP_SYS_ADMIN in the mount namespace's user namespace) or, with FUSE, the user who mounted it: \(error)"
        case .noRights(let error): "mounting needs root privileges (CAP_SYS_ADMIN in the first user namespace): \(error)"
        case .noFileSystem(let name):
            "this kernel has no \(name) file system: load its module, or use a kernel with CONFIG_\(name == "erofs" ? "EROFS" : "OVERLAY")_FS"
        case .noMountAPI: "this kernel has no mount API (Linux 5.2), or a sandbox forbids it: mounting an image needs Linux 6.5 or newer"
        case .noLoopDevice(let error):
            "the kernel needs a block device for the image (before Linux 6.12, or because of the image's file system), "
                + "but no loop device is available: \(error)"
        case .verityUnsupported(let path):
            "the repository needs fs-verity, but this kernel or the file system of \(path) has none, so every file would fail to open: "
                + "mount on a kernel with CONFIG_FS_VERITY, or use an insecure repository"
        case .overlayWithoutVerity:
            "the repository needs fs-verity, but this kernel's overlayfs cannot check it: use Linux 6.6 or newer"
        case .imageWithoutVerity(let path):
            "\(path): has no fs-verity, so its content cannot be verified: enable it (fsverity enable) on a file system that supports it"
        case .noImageFile(let path): "\(path): not an image: neither a file nor a block device"
        case .otherImage(let path, let found, let wanted): "\(path): is another image: its digest is \(found), not \(wanted)"
        case .image(let error, let kernel): "the kernel refused the image: \(error)\(Self.quoted(kernel))"
        case .ownerMap(let error):
            "the kernel cannot map the image's owners: \(error); use the /proc/PID/ns/user of a process in another user namespace "
                + "(Linux 5.19 or newer)"
        case .overlay(let error, let kernel):
            "the kernel refused to combine image and objects (overlayfs with data-only layers, Linux 6.5 or newer): \(error)\(Self.quoted(kernel))"
        case .notMounted(let path): "\(path): not mounted"
        case .notAnImage(let path, let type, let source):
            "\(path): not an image: the mount has type \(type) and source \(source); use umount(8)"
        case .busy(let path): "\(path): the mount is in use: stop the processes that use it, or unmount it lazily"
        case .notServed(let path): "\(path): the process that served this mount has ended"
        case .system(let error) where error.errno == .notSupported && error.operation == "open":
            "\(error): files with fs-verity need a kernel with CONFIG_FS_VERITY, and this one has none"
        case .system(let error): error.description
        }
    }

    private static func quoted(_ kernel: String) -> String { kernel.isEmpty ? "" : " (\(kernel))" }

    /// Maps failures that have the same meaning in every step to their cases, and others with `other`.
    init(_ error: SystemError, or other: (SystemError) -> MountError) {
        switch error.errno {
        case .notPermitted: self = .noRights(error)
        case .noSystemCall: self = .noMountAPI
        default: self = other(error)
        }
    }
}
