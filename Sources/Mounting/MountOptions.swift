public import ComposefsBytes
public import ComposefsLinuxSystem

/// Whether the kernel compares a file's fs-verity digest with the image when the file is opened (overlayfs's `verity=require`).
public enum VerityChecking: Sendable, Hashable {
    /// Fail if the kernel or the objects' file system lacks fs-verity.
    case required
    /// Check if the kernel and the objects' file system support it; then every object must have fs-verity.
    case ifSupported
    /// Do not check: the content of objects is served as it is.
    case none
}

/// Options of mounting an image.
public struct MountOptions: Sendable, Hashable {
    /// Receives changes; needs `workDirectory` on the same file system.
    public var upperDirectory: ByteString?
    /// An empty directory for use by the kernel; needs `upperDirectory`.
    public var workDirectory: ByteString?
    /// Whether the mount is writable; needs `upperDirectory`. If false, an upper directory is visible but not changed.
    public var readWrite: Bool
    /// A user namespace (`/proc/PID/ns/user`) through which the owners of files are mapped.
    public var idmap: ByteString?
    /// The mount's source in the kernel's tables (`/proc/self/mountinfo`); `composefs` if it is longer than 255 bytes, the kernel's limit.
    public var source: ByteString
    /// Further directories of objects, which are searched after the first.
    public var moreObjects: [ByteString] = []
    /// Attributes of the mount: `.noSetUserID` (nosuid), `.noDevices` (nodev), `.noExecute` (noexec), `.noAccessTime`, `.strictAccessTime`,
    /// `.noDirectoryAccessTime`, `.noSymbolicLinks`. `readWrite` determines whether the mount is read-only.
    ///
    /// By default an image grants no privileges, because its author could have added a set-user-ID program or a device node. Omit the first
    /// two for the root file system of a host, or of a container that trusts its image (sudo, su, ping with capabilities).
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

    /// The mount source for an image with this name: `composefs:NAME`.
    public static func source(ofImage name: ByteString) -> ByteString { "composefs:" + name }

    func check() throws(MountError) {
        guard (upperDirectory == nil) == (workDirectory == nil) else {
            throw .options(.upperOrWorkMissing)
        }
        guard !readWrite || upperDirectory != nil else {
            throw .options(.writableWithoutUpper)
        }
    }

    /// FSCONFIG_SET_STRING accepts 256 bytes including the NUL.
    var kernelSource: ByteString { source.count <= 255 ? source : "composefs" }

    var mountAttributes: MountAttributes { readWrite ? attributes.subtracting(.readOnly) : attributes.union(.readOnly) }
}
