public import ComposefsBytes

/// An entry of an archive: its header, combined with the extension headers before it.
public struct TarEntry: Sendable {
    public enum Kind: Hashable, Sendable, BitwiseCopyable {
        case regular, hardLink, symbolicLink, characterDevice, blockDevice, directory, fifo
        /// An unknown type flag. The content of such an entry, if any, stays inline.
        case other(UInt8)
    }

    /// The name as in the archive. It is not normalised; only a NUL is refused. `GNU.sparse.name` takes precedence over a PAX `path`,
    /// which takes precedence over a GNU long name, which takes precedence over the ustar prefix and name.
    public var path: ByteString
    /// The target of a hard or symbolic link, which is never empty. For other types, the header's field, which has no meaning.
    public var linkTarget: ByteString
    public var kind: Kind
    /// The permission bits (07777). The type bits that some writers add are dropped.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// Seconds since 1970-01-01T00:00:00Z, rounded down, and nanoseconds (0…999,999,999): -1.25 s is -2 and 750,000,000.
    public var mtime: (seconds: Int64, nanoseconds: UInt32)
    /// The number of content bytes in the archive; 0 for links, devices, directories and FIFOs, whatever their headers say.
    public var size: UInt64
    /// 0…4095; 0 if the entry is not a device.
    public var deviceMajor: UInt32
    /// 0…1,048,575; 0 if the entry is not a device.
    public var deviceMinor: UInt32
    /// The extended attributes from `SCHILY.xattr.` PAX records, each name once, in the order of their first occurrence. No value is empty,
    /// because PAX cannot express that.
    public var extendedAttributes: [(name: ByteString, value: ByteString)]
    /// The offset of the entry's own header block, in bytes from the start of the archive.
    public var headerOffset: UInt64
    /// For a sparse file, the map of its content: the archive contains only a part of it, see `SparseExpansion`.
    public var sparse: TarSparse?

    public init(
        path: ByteString, linkTarget: ByteString, kind: Kind, mode: UInt32, uid: UInt32, gid: UInt32,
        mtime: (seconds: Int64, nanoseconds: UInt32), size: UInt64, deviceMajor: UInt32, deviceMinor: UInt32,
        extendedAttributes: [(name: ByteString, value: ByteString)], headerOffset: UInt64, sparse: TarSparse? = nil
    ) {
        self.path = path
        self.linkTarget = linkTarget
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = size
        self.deviceMajor = deviceMajor
        self.deviceMinor = deviceMinor
        self.extendedAttributes = extendedAttributes
        self.headerOffset = headerOffset
        self.sparse = sparse
    }
}

/// The location of an entry's content.
public enum TarContent: Sendable, Hashable {
    /// The entry is not a regular file.
    case none
    /// The whole content of a regular file of at most 64 bytes.
    case inline(ByteString)
    /// The content of a larger regular file follows; the size is in bytes.
    case external(size: UInt64)

    /// Regular files with more bytes than this are external (split stream format, "What goes inline").
    public static let inlineLimit: UInt64 = 64
}

/// Receives what the parser finds. Conforming types may be noncopyable, and so may own descriptors and writers.
public protocol TarHandler: ~Copyable {
    /// Receives all bytes that are not external content, in order: headers, small files, padding, and everything after the end marker. The
    /// bytes may arrive after the entry that they describe, but never after external content that follows them in the archive.
    mutating func inline(_ bytes: UnsafeRawBufferPointer) throws

    /// Receives an entry, as soon as its header and the content of a small file have been read.
    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws

    /// Receives a chunk of the external content of the entry received last. `isLast` is true once, for the chunk that completes the
    /// content.
    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) throws

    /// Marks a position at which an inline chunk may be ended: between two entries or after the end marker. The parser calls this about
    /// once per mebibyte of inline bytes, after it has passed on all bytes before the position.
    mutating func boundary() throws
}

extension TarHandler where Self: ~Copyable {
    public mutating func boundary() throws {}
}

/// Limits of the memory that an archive may use.
public struct TarLimits: Sendable {
    /// The size of all PAX, GNU long name and long link data before one entry, in bytes.
    public var extensionBytes: UInt64
    /// The length of a link's target in bytes (Linux: PATH_MAX without the NUL).
    public var linkTargetBytes: Int
    /// The length of an entry's path in bytes (Linux: PATH_MAX without the NUL).
    public var pathBytes: Int

    public init(extensionBytes: UInt64 = 1 << 20, linkTargetBytes: Int = 4095, pathBytes: Int = 4095) {
        self.extensionBytes = extensionBytes
        self.linkTargetBytes = linkTargetBytes
        self.pathBytes = pathBytes
    }

    public static let `default` = TarLimits()
}
