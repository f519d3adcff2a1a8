import ComposefsBootFormats
import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// Why the machine does not boot.
package struct Refusal: Error, Equatable {
    /// One line.
    package let line: String

    init(_ text: String) { line = Self.oneLine(text) }

    /// - Parameter kernel: the release of the kernel that runs.
    init(_ image: ComposefsArgument, _ cause: Cause, kernel: String = Host.kernelRelease) {
        self.init("\(image): \(cause.text(kernel: kernel))")
    }

    /// A record of the kernel's log has room for 1,024 bytes (`PRINTKRB_RECORD_MAX`), with its prefix. A line break would begin another line.
    private static func oneLine(_ text: String) -> String {
        var line = printable(text, limit: 900)
        while line.utf8.count > 900 { line.removeLast() }
        return line
    }

    /// What went wrong with an image that the kernel arguments name.
    enum Cause: Error {
        case repository(RepositoryError)
        case mount(MountError)
        case system(SystemError)
        /// The image has no such directory, which the configuration wants to mount something on.
        case noDirectory(ByteString)
        /// The deployment's directory lacks this one.
        case noState(ByteString)
        /// The kernel refused an overlay of this directory. Its message may be empty.
        case overlay(ByteString, SystemError, kernel: String)
        /// The disk is mounted read-only, and the changes to a directory of the root file system are there.
        case readOnlyDisk(ByteString, needed: ByteString)

        /// - Parameter kernel: the release of the kernel that runs.
        func text(kernel: String) -> String {
            switch self {
            case .repository(let error): Self.text(error)
            case .mount(let error): Self.text(error, KernelVersion(kernel), kernel)
            case .system(let error): "\(error)"
            case .noDirectory(let name): "the image has no directory /\(name) to mount the deployment's on"
            case .noState(let path): "\(path) is missing; `cfsoci boot prepare` makes it"
            case .overlay(let name, let error, let message):
                "the kernel refused an overlay of \(name): \(error)\(message.isEmpty ? "" : " (\(message))")"
            case .readOnlyDisk(let path, let needed):
                "\(path) is mounted read-only, and changes to \(needed) are stored there; add the kernel argument rw"
            }
        }

        private static func text(_ error: RepositoryError) -> String {
            switch error {
            case .insecure: "\(error); a ? before the ID allows a repository without fs-verity"
            default: "\(error)"
            }
        }

        /// Kernels of distributions have features of later ones, so all is tried first, and the version only explains a failure.
        private static func text(_ error: MountError, _ version: KernelVersion?, _ kernel: String) -> String {
            func isOlder(than major: Int, _ minor: Int) -> Bool {
                version.map { $0 < KernelVersion(major: major, minor: minor) } ?? false
            }
            switch error {
            case .noMountAPI where isOlder(than: 5, 2): return "the kernel \(kernel) is too old: it has no mount API (Linux 5.2)"
            case .overlayWithoutVerity where isOlder(than: 6, 6):
                return "the kernel \(kernel) is too old: its overlayfs does not check fs-verity (Linux 6.6)"
            case .overlay where isOlder(than: 6, 5):
                return "the kernel \(kernel) is too old: its overlayfs does not combine an image with its objects (Linux 6.5); \(error)"
            case .noLoopDevice where isOlder(than: 6, 12):
                return
                    "the kernel \(kernel) needs a loop device to mount an image (before Linux 6.12); add the module loop to the initial RAM "
                    + "disk; \(error)"
            case .noFileSystem(let name):
                return "the kernel \(kernel) has no \(name): add the module \(name) to the initial RAM disk"
            default: return "\(error)"
            }
        }
    }
}

/// The first two numbers of a kernel's release.
struct KernelVersion: Comparable {
    var major: Int
    var minor: Int

    init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// Nil if the text does not begin with two numbers.
    init?(_ release: String) {
        let parts = release.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1].prefix { $0.isASCII && $0.isNumber }) else {
            return nil
        }
        self.init(major: major, minor: minor)
    }

    static func < (one: KernelVersion, other: KernelVersion) -> Bool { (one.major, one.minor) < (other.major, other.minor) }
}
