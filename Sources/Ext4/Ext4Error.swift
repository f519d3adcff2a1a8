public import ComposefsBytes

/// The reason why a tree cannot be written as a file system, or why an image cannot be read or grown.
public enum Ext4Error: Error, Hashable, Sendable, CustomStringConvertible {
    /// The format cannot express the tree. `path` is absolute.
    case unwritable(path: ByteString, Reason)
    /// The requested size is too small. Both numbers are in bytes; `needed` is the smallest size that is possible.
    case tooSmall(bytes: UInt64, needed: UInt64)
    /// The file system would exceed 16 TiB. `bytes` is a lower bound of its size.
    case tooLarge(bytes: UInt64)
    /// The number of inodes exceeds what 16 TiB can have.
    case tooManyInodes(UInt64)
    /// An option has a value that no file system can have.
    case invalidOption(Option)
    /// The bytes are not an ext4 file system. The offset is in bytes.
    case notExt4(offset: UInt64, String)
    /// The file system has a feature that this module does not support.
    case unsupported(String)
    /// The file system was not unmounted, or is marked as faulty. `e2fsck -p` repairs this.
    case notClean(Dirt)
    /// The file system violates the format. The inode is 0 if the fault does not belong to one; the offset is in bytes.
    case damaged(inode: UInt32, offset: UInt64, String)
    /// A file system cannot be made smaller. Both sizes are in bytes.
    case cannotShrink(from: UInt64, to: UInt64)
    /// The descriptors of the new groups do not fit into their reserve. Both sizes are in bytes.
    case growthExceedsReserve(bytes: UInt64, maximum: UInt64)
    /// The file that holds the file system is smaller than the file system should become. Both sizes are in bytes.
    case storageTooSmall(bytes: UInt64, needed: UInt64)

    public enum Option: Hashable, Sendable, CustomStringConvertible {
        /// The limit is 16 bytes, without NUL.
        case label(ByteString)
        /// The journal must have 1,024 to 65,536 blocks.
        case journalBlocks(Int)
        /// 0 to 1,023 blocks can be reserved.
        case reservedDescriptorBlocks(Int)

        public var description: String {
            switch self {
            case .label(let label): "the label '\(label)' has more than 16 bytes, or a NUL"
            case .journalBlocks(let count): "a journal of \(count) blocks; 1024 to 65536 are possible"
            case .reservedDescriptorBlocks(let count): "\(count) reserved blocks for group descriptors; 0 to 1023 are possible"
            }
        }
    }

    /// The reason why a file system is not clean.
    public enum Dirt: Hashable, Sendable, CustomStringConvertible {
        /// The journal has changes that were not applied (`needs_recovery`).
        case journal
        /// A kernel or `e2fsck` found a fault, or an operation was interrupted (`s_state`).
        case state(UInt16)
        /// Deleted files were not yet removed. `inode` is the first of them, or 0 if there is a file of orphans.
        case orphans(inode: UInt32)

        public var description: String {
            switch self {
            case .journal: "its journal has changes that were not applied"
            case .state(let state): "it is marked as unclean (state \(state))"
            case .orphans: "it has deleted files that were not yet removed"
            }
        }
    }

    /// The reason why the format cannot express a tree.
    public enum Reason: Hashable, Sendable, CustomStringConvertible {
        /// The limit is 255 bytes.
        case nameTooLong(bytes: Int)
        /// The limit is 4,095 bytes.
        case targetTooLong(bytes: Int)
        /// A symlink's target is empty or has a NUL.
        case targetInvalid
        /// The limit is 65,000 names.
        case tooManyLinks(UInt32)
        /// The limit is 16 TiB - 8 KiB.
        case fileTooLarge(bytes: UInt64)
        /// The index of a directory has two levels.
        case directoryTooLarge(entries: Int)
        /// A device's major number must fit in 12 bits and its minor number in 20.
        case deviceNumberTooLarge(UInt64)
        /// The nanoseconds must be less than 1,000,000,000.
        case nanosecondsTooLarge(UInt32)
        /// The name without its prefix must have at most 255 bytes.
        case attributeNameTooLong(ByteString)
        /// An attribute name is empty or contains a NUL.
        case attributeNameInvalid(ByteString)
        /// The limit is 65,536 bytes.
        case attributeValueTooLong(ByteString, bytes: Int)
        /// The names of all attributes of an inode must fit in one block.
        case attributesTooLarge
        /// The attribute is not a valid access control list.
        case accessControlListInvalid(ByteString)

        public var description: String {
            switch self {
            case .nameTooLong(let bytes): "the name has \(bytes) bytes, the limit is 255"
            case .targetTooLong(let bytes): "the symlink's target has \(bytes) bytes, the limit is 4095"
            case .targetInvalid: "the symlink's target is empty or has a NUL"
            case .tooManyLinks(let count): "the file has \(count) names, the limit of ext4 is \(Ext4Format.maximumLinks)"
            case .fileTooLarge(let bytes): "the file has \(bytes) bytes, the limit of ext4 is 16 TiB"
            case .directoryTooLarge(let entries): "the directory has too many entries (\(entries)) for an index of two levels"
            case .deviceNumberTooLarge(let number): "device number \(number) does not fit in 32 bits"
            case .nanosecondsTooLarge(let count): "its time has \(count) nanoseconds"
            case .attributeNameTooLong(let name): "the extended attribute name '\(name)' is longer than 255 bytes"
            case .attributeNameInvalid(let name): "'\(name)' is not a valid extended attribute name"
            case .attributeValueTooLong(let name, let bytes): "extended attribute '\(name)' has \(bytes) bytes, the limit is 65536"
            case .attributesTooLarge: "the names of its extended attributes do not fit in a block of 4096 bytes"
            case .accessControlListInvalid(let name): "extended attribute '\(name)' is not a valid access control list"
            }
        }
    }

    public var description: String {
        switch self {
        case .unwritable(let path, let reason): return "cannot write '\(path)' to an ext4 file system: \(reason)"
        case .tooSmall(let bytes, let needed): return "the file system needs \(needed) bytes, and \(bytes) are too few"
        case .tooLarge(let bytes): return "the ext4 file system would have at least \(bytes) bytes, the limit is 16 TiB"
        case .tooManyInodes(let count): return "the ext4 file system would need \(count) inodes, more than it can have"
        case .invalidOption(let option): return "an ext4 file system cannot have \(option)"
        case .notExt4(let offset, let what): return "not an ext4 file system: \(what) (offset \(offset))"
        case .unsupported(let what): return "this ext4 file system has a feature that is not supported: \(what)"
        case .notClean(let dirt): return "the ext4 file system is not clean: \(dirt); run 'e2fsck -p' on it"
        case .damaged(0, let offset, let what): return "damaged ext4 file system: \(what) (offset \(offset))"
        case .damaged(let inode, let offset, let what): return "damaged ext4 file system: \(what) (inode \(inode), offset \(offset))"
        case .cannotShrink(let from, let to): return "an ext4 file system of \(from) bytes cannot be made smaller (\(to) bytes)"
        case .growthExceedsReserve(let bytes, let maximum):
            return "the ext4 file system can grow to \(maximum) bytes, not to \(bytes): its reserve for group descriptors is too small"
        case .storageTooSmall(let bytes, let needed): return "the file has \(bytes) bytes, the ext4 file system needs \(needed)"
        }
    }
}
