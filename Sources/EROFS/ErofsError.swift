public import ComposefsBytes

/// The reason why a tree cannot be written as an image, or why bytes are not a valid image.
public enum ErofsError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The format cannot express the tree. `path` is absolute.
    case unwritable(path: ByteString, Reason)
    /// The image would be larger than 1 GiB, the limit of readers. `bytes` is a lower bound of its size.
    case imageTooLarge(bytes: UInt64)
    /// The image would have more blocks than 32-bit numbers can address: 16 TiB. `bytes` is a lower bound of its size.
    case diskTooLarge(bytes: UInt64)
    /// The bytes are not a composefs image, or use a feature that composefs does not use. The offset is in bytes.
    case notComposefs(offset: UInt64, String)
    /// The image violates the format. `nid` is the inode's number (offset / 32), `path` its absolute path, if known.
    case damaged(nid: UInt64, path: ByteString?, String)

    /// The reason why the format cannot express a tree.
    public enum Reason: Hashable, Sendable, CustomStringConvertible {
        /// The limit is 255 bytes.
        case nameTooLong(bytes: Int)
        /// The limit is 4,095 bytes, or 1,024 in version 2.
        case targetTooLong(bytes: Int)
        /// The limit is 4,095 bytes, in version 2 only.
        case inlineContentTooLong(bytes: Int)
        /// The name without a known prefix must have at most 255 bytes.
        case attributeNameTooLong(ByteString)
        /// An attribute name is empty or contains a NUL.
        case attributeNameInvalid(ByteString)
        /// The limit is 65,535 bytes.
        case attributeValueTooLong(ByteString, bytes: Int)
        /// The limit is 255 attributes that the inode shares with others.
        case tooManySharedAttributes(Int)
        /// The limit is 262,148 bytes of attributes in one inode.
        case attributesTooLarge(bytes: Int)
        /// A device number must fit in 32 bits.
        case deviceNumberTooLarge(UInt64)
        /// The nanoseconds must be less than 1,000,000,000.
        case nanosecondsTooLarge(UInt32)
        /// A whiteout (character device 0:0) has several names.
        case linkedWhiteout

        public var description: String {
            switch self {
            case .nameTooLong(let bytes): "the name has \(bytes) bytes, the limit is 255"
            case .targetTooLong(let bytes):
                "the symlink's target has \(bytes) bytes, the limit "
                    + (bytes > ErofsVersion.v1.maximumTargetLength ? "is 4095" : "of format version 2 is 1024")
            case .inlineContentTooLong(let bytes): "the inline content has \(bytes) bytes, the limit of format version 2 is 4095"
            case .attributeNameTooLong(let name): "the extended attribute name '\(name)' is longer than 255 bytes"
            case .attributeNameInvalid(let name): "'\(name)' is not a valid extended attribute name"
            case .attributeValueTooLong(let name, let bytes): "extended attribute '\(name)' has \(bytes) bytes, the limit is 65535"
            case .tooManySharedAttributes(let count): "\(count) extended attributes are shared with other files, the limit is 255"
            case .attributesTooLarge(let bytes): "the extended attributes need \(bytes) bytes, the limit is 262148"
            case .deviceNumberTooLarge(let number): "device number \(number) does not fit in 32 bits"
            case .nanosecondsTooLarge(let count): "its time has \(count) nanoseconds"
            case .linkedWhiteout: "a whiteout (character device 0:0) has more than one name"
            }
        }
    }

    public var description: String {
        switch self {
        case .unwritable(let path, let reason): "cannot write '\(path)' to an EROFS image: \(reason)"
        case .imageTooLarge(let bytes): "the EROFS image would have at least \(bytes) bytes, the limit is \(Erofs.maximumImageSize)"
        case .diskTooLarge(let bytes): "the EROFS disk would have at least \(bytes) bytes, the limit is 16 TiB"
        case .notComposefs(let offset, let what): "not a composefs image: \(what) (offset \(offset))"
        case .damaged(let nid, let path?, let what): "damaged EROFS image: \(what) (inode \(nid), '\(path)')"
        case .damaged(let nid, nil, let what): "damaged EROFS image: \(what) (inode \(nid), offset \(nid &* 32))"
        }
    }
}
