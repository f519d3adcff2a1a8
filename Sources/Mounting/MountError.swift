public import ComposefsBytes
public import ComposefsLinuxSystem

/// Why an image could not be mounted or unmounted. Every description is one line that says what to do where that is not obvious.
public enum MountError: Error, Sendable, Hashable, CustomStringConvertible {
    /// An unknown mount option, one without its value, or options that contradict each other.
    case options(MountOptionFault)
    /// The process may not mount here.
    case noRights(SystemError)
    /// The kernel has no file system of this name, `erofs` or `overlay`.
    case noFileSystem(String)
    /// The kernel has no mount API (before Linux 5.2, or a sandbox hides it).
    case noMountAPI
    /// The kernel takes this image only as a block device, and there is no loop device to make it one.
    case noLoopDevice(SystemError)
    /// Files must be verified, but the kernel or the file system of the objects has no fs-verity.
    case verityUnsupported(objects: ByteString)
    /// The kernel's overlayfs cannot check fs-verity digests.
    case overlayWithoutVerity
    /// The image's file has no fs-verity digest to compare with the one demanded.
    case imageWithoutVerity(ByteString)
    /// What should be the image is neither a file nor a block device.
    case noImageFile(ByteString)
    /// The image's digest is not the one demanded; both in hex.
    case otherImage(ByteString, found: String, wanted: String)
    /// The kernel does not take the image; what it says of it may be empty.
    case image(SystemError, kernel: String)
    /// The kernel cannot show the image's owners through the user namespace.
    case ownerMap(SystemError)
    /// The kernel does not put image and objects together; what it says of it may be empty.
    case overlay(SystemError, kernel: String)
    /// Nothing is mounted at this directory.
    case notMounted(ByteString)
    /// What is mounted there is no image of ours: the file system's type and source.
    case notAnImage(ByteString, type: ByteString, source: ByteString)
    /// Something still uses the mount.
    case busy(ByteString)
    /// What is mounted at the directory was served by a process that has ended (FUSE).
    case notServed(ByteString)
    case system(SystemError)

    public var description: String {
        switch self {
        case .options(let fault): fault.description
        case .noRights(let error) where error.operation == "unmount":
            "unmounting needs root's rights (CAP_SYS_ADMIN in the mount namespace's user namespace), or with FUSE to be who mounted it: \(error)"
        case .noRights(let error): "mounting needs root's rights (CAP_SYS_ADMIN in the first user namespace): \(error)"
        case .noFileSystem(let name):
            "this kernel has no \(name) file system: load its module or use a kernel with CONFIG_\(name == "erofs" ? "EROFS" : "OVERLAY")_FS"
        case .noMountAPI: "this kernel has no mount API (Linux 5.2), or a sandbox forbids it: mounting an image needs Linux 6.5 or newer"
        case .noLoopDevice(let error):
            "the kernel wants the image as a block device (before Linux 6.12, or because of the file system that the image is on), "
                + "and there is no loop device: \(error)"
        case .verityUnsupported(let path):
            "the repository needs fs-verity, but this kernel or the file system of \(path) has none, so every file would fail to open: "
                + "mount on a kernel with CONFIG_FS_VERITY, or use an insecure repository"
        case .overlayWithoutVerity:
            "the repository needs fs-verity, but this kernel's overlayfs cannot check it: use Linux 6.6 or newer"
        case .imageWithoutVerity(let path):
            "\(path): has no fs-verity, so nobody vouches for its content: enable it (fsverity enable), on a file system that has it"
        case .noImageFile(let path): "\(path): is no image: neither a file nor a block device"
        case .otherImage(let path, let found, let wanted): "\(path): is another image: its digest is \(found), not \(wanted)"
        case .image(let error, let kernel): "the kernel does not mount the image: \(error)\(Self.quoted(kernel))"
        case .ownerMap(let error):
            "the kernel cannot map the image's owners: \(error); it takes the /proc/PID/ns/user of a process in another user namespace "
                + "(Linux 5.19 or newer)"
        case .overlay(let error, let kernel):
            "the kernel does not join image and objects (overlayfs with data-only layers, Linux 6.5 or newer): \(error)\(Self.quoted(kernel))"
        case .notMounted(let path): "\(path): nothing is mounted there"
        case .notAnImage(let path, let type, let source):
            "\(path): what is mounted there is no image, but \(type) of \(source); umount(8) unmounts it"
        case .busy(let path): "\(path): the mount is in use; end what uses it or unmount it lazily"
        case .notServed(let path): "\(path): the process that served what is mounted there has ended"
        case .system(let error) where error.errno == .notSupported && error.operation == "open":
            "\(error): files with fs-verity need a kernel with CONFIG_FS_VERITY, and this one has none"
        case .system(let error): error.description
        }
    }

    private static func quoted(_ kernel: String) -> String { kernel.isEmpty ? "" : " (\(kernel))" }

    /// Sorts a system call's failure into those that have the same reason in every step.
    init(_ error: SystemError, or other: (SystemError) -> MountError) {
        switch error.errno {
        case .notPermitted: self = .noRights(error)
        case .noSystemCall: self = .noMountAPI
        default: self = other(error)
        }
    }
}
