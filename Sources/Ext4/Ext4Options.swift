public import ComposefsBytes
internal import ComposefsHashing

/// The identifier of a file system.
public struct Ext4UUID: Hashable, Sendable, CustomStringConvertible {
    /// Sixteen bytes.
    public let bytes: [UInt8]

    /// Nil unless there are sixteen bytes.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    /// An identifier in the form of a random one (RFC 9562, version 4). Nil unless there are at least sixteen bytes.
    public init?(random: [UInt8]) {
        guard random.count >= 16 else { return nil }
        self.init(digest: random)
    }

    /// As above, from a digest.
    init(digest: [UInt8]) {
        var bytes = Array(digest[..<16])
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        self.bytes = bytes
    }

    /// In the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
    public var description: String {
        let hex = Array(Hex.encode(bytes))
        let parts = [0..<8, 8..<12, 12..<16, 16..<20, 20..<32]
        return parts.map { String(hex[$0]) }.joined(separator: "-")
    }
}

/// The properties of a new file system that do not come from its tree.
public struct Ext4Options: Hashable, Sendable {
    public enum Size: Hashable, Sendable {
        /// The smallest size that holds the tree.
        case minimal
        /// The smallest size that leaves room for more contents, in bytes, and more inodes.
        case spare(bytes: UInt64, inodes: UInt64)
        /// A size in bytes. It is rounded down to whole blocks of 4 KiB; a last group that is too small for its own metadata stays unused.
        case exactly(UInt64)
    }

    public enum Journal: Hashable, Sendable {
        /// For file systems that are mounted read-only.
        case none
        /// The size that mke2fs chooses, up to 64 MiB.
        case automatic
        /// 1,024 to 65,536 blocks of 4 KiB.
        case blocks(Int)
    }

    public var size: Size
    /// Nil derives the UUID from the tree, so that the same tree gets the same one. It is also the seed of the directories' hashes.
    public var uuid: Ext4UUID?
    /// At most 16 bytes.
    public var label: ByteString
    public var journal: Journal
    /// The number of blocks that are kept for more group descriptors, at most 1,023. Each lets the file system grow by 8 GiB, online or offline.
    public var reservedDescriptorBlocks: Int
    /// Whether the root gets a directory `lost+found`, unless the tree has that name.
    public var hasLostAndFound: Bool

    public init(
        size: Size = .minimal, uuid: Ext4UUID? = nil, label: ByteString = "", journal: Journal = .none,
        reservedDescriptorBlocks: Int = 256, hasLostAndFound: Bool = true
    ) {
        self.size = size
        self.uuid = uuid
        self.label = label
        self.journal = journal
        self.reservedDescriptorBlocks = reservedDescriptorBlocks
        self.hasLostAndFound = hasLostAndFound
    }

    func check() throws(Ext4Error) {
        guard label.count <= 16, !label.bytes.contains(0) else { throw .invalidOption(.label(label)) }
        guard (0...1023).contains(reservedDescriptorBlocks) else {
            throw .invalidOption(.reservedDescriptorBlocks(reservedDescriptorBlocks))
        }
        if case .blocks(let count) = journal, !(1024...65536).contains(count) { throw .invalidOption(.journalBlocks(count)) }
    }

    /// The number of blocks of the journal of a file system with this many blocks (`ext2fs_default_journal_size`).
    func journalBlocks(fileSystem blocks: UInt64) -> Int {
        switch journal {
        case .none: 0
        case .blocks(let count): count
        case .automatic: blocks < 32768 ? 1024 : blocks < 256 * 1024 ? 4096 : blocks < 512 * 1024 ? 8192 : 16384
        }
    }
}
