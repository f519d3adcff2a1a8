/// Constants of the FUSE protocol (linux/fuse.h). All integers are in the machine's byte order.
enum FuseProtocol {
    static let major: UInt32 = 7
    /// The oldest supported minor version (Linux 5.4).
    static let oldestMinor: UInt32 = 31
    /// The newest minor version that this server knows. Newer kernels negotiate down to it.
    static let newestMinor: UInt32 = 44

    static let rootNode: UInt64 = 1
    static let requestHeaderSize = 40
    static let replyHeaderSize = 16
    static let attributesSize = 88
    static let entrySize = 128
    static let initReplySize = 64
    static let openReplySize = 16

    /// The smallest buffer for requests that the kernel accepts, in bytes.
    static let requestBufferSize = 1 << 16
    /// The longest read in pages.
    static let maximumPages = 256
    static let maximumRead = maximumPages * 4096

    /// How long the kernel may cache names and attributes, in seconds: practically forever, because an image cannot change.
    static let validity: UInt64 = 1 << 31
}

/// The flags of FUSE_INIT. The second word is in the upper half.
struct FuseFlags: OptionSet, Sendable, Hashable {
    var rawValue: UInt64

    static let asynchronousRead = FuseFlags(rawValue: 1 << 0)
    static let exportSupport = FuseFlags(rawValue: 1 << 4)
    static let readDirectoryPlus = FuseFlags(rawValue: 1 << 13)
    static let asynchronousDirectIO = FuseFlags(rawValue: 1 << 15)
    static let noOpenSupport = FuseFlags(rawValue: 1 << 17)
    static let parallelDirectoryOperations = FuseFlags(rawValue: 1 << 18)
    static let posixACL = FuseFlags(rawValue: 1 << 20)
    static let maximumPages = FuseFlags(rawValue: 1 << 22)
    static let cacheSymlinks = FuseFlags(rawValue: 1 << 23)
    static let noOpenDirectorySupport = FuseFlags(rawValue: 1 << 24)
    static let explicitInvalidation = FuseFlags(rawValue: 1 << 25)
    static let extended = FuseFlags(rawValue: 1 << 30)
    static let passthrough = FuseFlags(rawValue: 1 << 37)

    static let wanted: FuseFlags = [
        .asynchronousRead, .exportSupport, .readDirectoryPlus, .asynchronousDirectIO, .parallelDirectoryOperations, .posixACL,
        .maximumPages, .cacheSymlinks, .noOpenDirectorySupport, .explicitInvalidation, .extended, .passthrough,
    ]

    /// The flags for opening files on first read. The kernel then sends no open requests, so it cannot be given a backing file.
    static let wantedForLazyOpens: FuseFlags = wanted.subtracting(.passthrough).union(.noOpenSupport)
}

/// FOPEN_*: how the kernel treats an open file.
struct FuseOpenFlags: OptionSet, Sendable, Hashable {
    var rawValue: UInt32

    static let keepCache = FuseOpenFlags(rawValue: 1 << 1)
    static let cacheDirectory = FuseOpenFlags(rawValue: 1 << 3)
    static let noFlush = FuseOpenFlags(rawValue: 1 << 5)
    static let passthrough = FuseOpenFlags(rawValue: 1 << 7)
}

/// enum fuse_opcode.
enum FuseOperation: UInt32, Sendable, CaseIterable {
    case lookup = 1, forget, getAttributes, setAttributes, readLink, symlink
    case makeNode = 8, makeDirectory, unlink, removeDirectory, rename, link, open, read, write, statFileSystem, release
    case sync = 20, setExtendedAttribute, getExtendedAttribute, listExtendedAttributes, removeExtendedAttribute, flush, initialize
    case openDirectory, readDirectory, releaseDirectory, syncDirectory, getLock, setLock, setLockWaiting, access, create, interrupt
    case mapBlock, destroy, ioctl, poll, notifyReply, forgetMany, allocate, readDirectoryPlus, renameWithFlags, seek, copyRange
    case setUpMapping, removeMapping, syncFileSystem, createTemporary, extendedStatus, copyLongRange

    /// Whether the operation would change the file system.
    var isChange: Bool {
        switch self {
        case .setAttributes, .symlink, .makeNode, .makeDirectory, .unlink, .removeDirectory, .rename, .link, .write, .setExtendedAttribute,
            .removeExtendedAttribute, .create, .allocate, .renameWithFlags, .copyRange, .createTemporary, .copyLongRange:
            true
        default: false
        }
    }
}
