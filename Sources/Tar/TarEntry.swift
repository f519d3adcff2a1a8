public import ComposefsBytes

/// One member of an archive: its header, after the extension headers before it were applied.
public struct TarEntry: Sendable {
    public enum Kind: Hashable, Sendable {
        case regular, hardLink, symbolicLink, characterDevice, blockDevice, directory, fifo
        /// A type flag that is none of the above. Its content, if any, stays inline.
        case other(UInt8)
    }

    /// The name as the archive has it: nothing is stripped, resolved or checked except that it holds no NUL.
    /// `GNU.sparse.name` counts before a PAX `path`, that before a GNU long name, that before the ustar prefix and name.
    public var path: ByteString
    /// Of hard and symbolic links, never empty there; of all others whatever the header says.
    public var linkTarget: ByteString
    public var kind: Kind
    /// Permission bits, `07777` at most: type bits that some writers add are dropped.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// Seconds since 1970, rounded down, and the nanoseconds since then (0…999,999,999): -1.25 s is -2 and 750,000,000.
    public var mtime: (seconds: Int64, nanoseconds: UInt32)
    /// Bytes of content that the archive holds for this entry; 0 for links, devices, directories and fifos, whatever their header says.
    public var size: UInt64
    /// 0…4095, and 0 where the entry is no device.
    public var deviceMajor: UInt32
    /// 0…1,048,575, and 0 where the entry is no device.
    public var deviceMinor: UInt32
    /// From `SCHILY.xattr.` PAX records, each name once, in the order of their first appearance. No value is empty: PAX cannot say that.
    public var extendedAttributes: [(name: ByteString, value: ByteString)]
    /// Where the entry's own header block begins, in bytes from the start of the archive.
    public var headerOffset: UInt64
    /// Of a sparse file: what the archive holds is only a part of its content, see `SparseExpansion`.
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

/// Where an entry's content is.
public enum TarContent: Sendable, Hashable {
    /// The entry is no regular file.
    case none
    /// The whole content of a regular file of at most 64 bytes.
    case inline(ByteString)
    /// The content of a larger regular file follows; its size in bytes.
    case external(size: UInt64)

    /// Regular files of more bytes than this are external (split stream format, "What goes inline").
    public static let inlineLimit: UInt64 = 64
}

/// Who takes what the parser finds. It may be a type that cannot be copied, and so own descriptors and writers.
public protocol TarHandler: ~Copyable {
    /// Every byte that is not external content, in the order of the stream: headers, small files, padding, and all that follows the end
    /// marker. The bytes may come later than the entry that they describe, but never later than external content that follows them.
    mutating func inline(_ bytes: UnsafeRawBufferPointer) throws

    /// An entry, as soon as its header and a small file's content were read.
    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws

    /// A piece of the content of the entry announced last, which was external. `isLast` is true once, with the piece that completes it.
    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) throws

    /// A place where an inline chunk may be cut: between two entries or behind the end marker. Called about once a mebibyte of inline bytes,
    /// all of which up to that place were handed over.
    mutating func boundary() throws
}

extension TarHandler where Self: ~Copyable {
    public mutating func boundary() throws {}
}

/// How much memory an archive may claim.
public struct TarLimits: Sendable {
    /// Bytes of PAX, GNU long name and long link data before one entry.
    public var extensionBytes: UInt64
    /// Bytes of a symbolic or hard link's target (Linux: PATH_MAX less the NUL).
    public var linkTargetBytes: Int
    /// Bytes of an entry's path (the same).
    public var pathBytes: Int

    public init(extensionBytes: UInt64 = 1 << 20, linkTargetBytes: Int = 4095, pathBytes: Int = 4095) {
        self.extensionBytes = extensionBytes
        self.linkTargetBytes = linkTargetBytes
        self.pathBytes = pathBytes
    }

    public static let `default` = TarLimits()
}
