public import ComposefsBytes
public import ComposefsLinuxSystem

/// Whether the kernel compares each file's fs-verity digest with the image when the file is opened (overlayfs's `verity=require`).
public enum VerityChecking: Sendable, Hashable {
    /// Fail where the kernel or the objects' file system cannot.
    case required
    /// Where the kernel and the objects' file system can; then every object must have fs-verity.
    case ifSupported
    /// Never: objects are served whatever they hold.
    case none
}

/// How an image is mounted.
public struct MountOptions: Sendable, Hashable {
    /// Takes what is changed; needs `workDirectory`, on the same file system.
    public var upperDirectory: ByteString?
    /// Working space of the kernel, an empty directory; needs `upperDirectory`.
    public var workDirectory: ByteString?
    /// Whether the mount may be written to; needs `upperDirectory`. Without it an upper directory is shown, but not changed.
    public var readWrite: Bool
    /// A user namespace (`/proc/PID/ns/user`) through which the image's owners are shown.
    public var idmap: ByteString?
    /// What the kernel's tables (`/proc/self/mountinfo`) show as the mount's source; `composefs` where it is longer than the 255 bytes
    /// that the kernel takes.
    public var source: ByteString
    /// More directories of objects, looked through where an object is not in the first.
    public var moreObjects: [ByteString] = []
    /// Of the mount: `.noSetUserID` (nosuid), `.noDevices` (nodev), `.noExecute` (noexec), `.noAccessTime`, `.strictAccessTime`,
    /// `.noDirectoryAccessTime`, `.noSymbolicLinks`. Read-only follows from `readWrite`.
    ///
    /// By default an image gives nobody privileges: whoever made it could have put a set-user-ID program or a device node in it. Leave the
    /// first two out for the root file system of a host, or of a container that trusts its image (sudo, su, ping with capabilities).
    public var attributes: MountAttributes

    public init(
        source: ByteString = "composefs", upperDirectory: ByteString? = nil, workDirectory: ByteString? = nil, readWrite: Bool = false,
        idmap: ByteString? = nil, attributes: MountAttributes = .withoutPrivileges
    ) {
        self.source = source
        self.upperDirectory = upperDirectory
        self.workDirectory = workDirectory
        self.readWrite = readWrite
        self.idmap = idmap
        self.attributes = attributes
    }

    /// As the source of an image with this name is written: `composefs:NAME`.
    public static func source(ofImage name: ByteString) -> ByteString { "composefs:" + name }

    func check() throws(MountError) {
        guard (upperDirectory == nil) == (workDirectory == nil) else {
            throw .options(.upperOrWorkMissing)
        }
        guard !readWrite || upperDirectory != nil else {
            throw .options(.writableWithoutUpper)
        }
    }

    /// FSCONFIG_SET_STRING takes 256 bytes with the NUL.
    var kernelSource: ByteString { source.count <= 255 ? source : "composefs" }

    var mountAttributes: MountAttributes { readWrite ? attributes.subtracting(.readOnly) : attributes.union(.readOnly) }
}
