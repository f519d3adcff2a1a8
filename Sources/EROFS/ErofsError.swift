public import ComposefsBytes

/// Why a tree cannot be written as an image, or why bytes are not an image that can be trusted.
public enum ErofsError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The tree holds something that the format cannot express. `path` is absolute.
    case unwritable(path: ByteString, Reason)
    /// An image of more than 1 GiB, which no reader accepts. `bytes` is what it would need at least.
    case imageTooLarge(bytes: UInt64)
    /// The bytes are not a composefs image, or use a feature that composefs never does. Offset in bytes.
    case notComposefs(offset: UInt64, String)
    /// The image breaks the format. `nid` is the inode's number (offset / 32), `path` its absolute path where it is known.
    case damaged(nid: UInt64, path: ByteString?, String)

    /// What the format cannot express.
    public enum Reason: Hashable, Sendable, CustomStringConvertible {
        /// Limit 255 bytes.
        case nameTooLong(bytes: Int)
        /// Limit 4,095 bytes, in version 2 1,024.
        case targetTooLong(bytes: Int)
        /// Limit 4,095 bytes, in version 2 only.
        case inlineContentTooLong(bytes: Int)
        /// The name without a known prefix must not exceed 255 bytes.
        case attributeNameTooLong(ByteString)
        /// An attribute name is empty or holds a NUL.
        case attributeNameInvalid(ByteString)
        /// Limit 65,535 bytes.
        case attributeValueTooLong(ByteString, bytes: Int)
        /// Limit 255 attributes that the inode has in common with others.
        case tooManySharedAttributes(Int)
        /// Limit 262,148 bytes of attributes in one inode.
        case attributesTooLarge(bytes: Int)
        /// Device numbers have 32 bits.
        case deviceNumberTooLarge(UInt64)
        /// A second has 1,000,000,000 of them.
        case nanosecondsTooLarge(UInt32)
        /// A whiteout (character device 0:0) with several names.
        case linkedWhiteout

        public var description: String {
            switch self {
            case .nameTooLong(let bytes): "the name has \(bytes) bytes, the limit is 255"
            case .targetTooLong(let bytes):
                "the symlink's target has \(bytes) bytes, the limit "
                    + (bytes > ErofsVersion.v1.maximumTargetLength ? "is 4095" : "of format version 2 is 1024")
            case .inlineContentTooLong(let bytes): "the inline content has \(bytes) bytes, the limit of format version 2 is 4095"
            case .attributeNameTooLong(let name): "the extended attribute name '\(name)' is longer than 255 bytes"
            case .attributeNameInvalid(let name): "'\(name)' is no valid extended attribute name"
            case .attributeValueTooLong(let name, let bytes): "extended attribute '\(name)' has \(bytes) bytes, the limit is 65535"
            case .tooManySharedAttributes(let count): "\(count) extended attributes are shared with other files, the limit is 255"
            case .attributesTooLarge(let bytes): "the extended attributes need \(bytes) bytes, the limit is 262148"
            case .deviceNumberTooLarge(let number): "device number \(number) does not fit 32 bits"
            case .nanosecondsTooLarge(let count): "its time has \(count) nanoseconds"
            case .linkedWhiteout: "a whiteout (character device 0:0) has more than one name"
            }
        }
    }

    public var description: String {
        switch self {
        case .unwritable(let path, let reason): "cannot write '\(path)' to an EROFS image: \(reason)"
        case .imageTooLarge(let bytes): "the EROFS image would have at least \(bytes) bytes, the limit is \(Erofs.maximumImageSize)"
        case .notComposefs(let offset, let what): "not a composefs image: \(what) (offset \(offset))"
        case .damaged(let nid, let path?, let what): "damaged EROFS image: \(what) (inode \(nid), '\(path)')"
        case .damaged(let nid, nil, let what): "damaged EROFS image: \(what) (inode \(nid), offset \(nid &* 32))"
        }
    }
}
