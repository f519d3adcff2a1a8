public import ComposefsBytes
public import ComposefsHashing

/// The content of an inode that is not a directory.
public enum Content: Hashable, Sendable {
    /// A regular file whose bytes are in the image itself.
    case inline(ByteString)
    /// A regular file whose bytes are an object; the size is in bytes.
    case external(ObjectID, size: UInt64)
    /// The same, but opening the file does not check the digest (dumpfiles only).
    case externalWithoutVerity(ObjectID, size: UInt64)
    /// A regular file that consists of one hole; the size is in bytes.
    case sparse(size: UInt64)
    /// A device number as in `st_rdev` (Linux `makedev`).
    case blockDevice(UInt64)
    case characterDevice(UInt64)
    case fifo
    case socket
    case symbolicLink(ByteString)
}

extension FileTree {
    /// The type of an inode.
    public enum Kind: UInt8, Sendable, Hashable, BitwiseCopyable {
        // In the order of EROFS's directory entry types (FT_REG_FILE…, erofs_fs.h).
        case regular = 1, directory, characterDevice, blockDevice, fifo, socket, symbolicLink

        /// The `S_IFMT` bits of `st_mode` (stat.h).
        public var modeBits: UInt16 {
            switch self {
            case .regular: 0o100000
            case .directory: 0o040000
            case .characterDevice: 0o020000
            case .blockDevice: 0o060000
            case .fifo: 0o010000
            case .socket: 0o140000
            case .symbolicLink: 0o120000
            }
        }

        /// Nil if the `S_IFMT` bits do not name a type.
        public init?(modeBits: UInt32) {
            switch modeBits & 0o170000 {
            case 0o100000: self = .regular
            case 0o040000: self = .directory
            case 0o020000: self = .characterDevice
            case 0o060000: self = .blockDevice
            case 0o010000: self = .fifo
            case 0o140000: self = .socket
            case 0o120000: self = .symbolicLink
            default: return nil
            }
        }
    }
}

extension Content {
    public var kind: FileTree.Kind {
        switch self {
        case .inline, .external, .externalWithoutVerity, .sparse: .regular
        case .blockDevice: .blockDevice
        case .characterDevice: .characterDevice
        case .fifo: .fifo
        case .socket: .socket
        case .symbolicLink: .symbolicLink
        }
    }

    /// Linux's encoding of a device number: glibc's `makedev` (sys/sysmacros.h).
    public static func deviceNumber(major: UInt32, minor: UInt32) -> UInt64 {
        let major = UInt64(major)
        let minor = UInt64(minor)
        return (major & 0xfff) << 8 | (major & 0xffff_f000) << 32 | minor & 0xff | (minor & 0xffff_ff00) << 12
    }

    /// The major and minor number of a device number as in `st_rdev`: glibc's `gnu_dev_major` and `gnu_dev_minor` (sys/sysmacros.h).
    public static func majorAndMinor(ofDevice number: UInt64) -> (major: UInt32, minor: UInt32) {
        let major = number >> 8 & 0xfff | number >> 32 & 0xffff_f000
        let minor = number & 0xff | number >> 12 & 0xffff_ff00
        return (UInt32(truncatingIfNeeded: major), UInt32(truncatingIfNeeded: minor))
    }
}
