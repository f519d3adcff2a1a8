internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// Names and hashes of extended attributes (fs/ext4/xattr.c).
enum AttributeNames {
    /// The prefixes that are stored as a number. A name without any of them is stored whole, under index 0; kernels do not show it.
    static let prefixes: [(index: UInt8, text: [UInt8], isWhole: Bool)] = [
        (1, Array("user.".utf8), false), (2, Array("system.posix_acl_access".utf8), true),
        (3, Array("system.posix_acl_default".utf8), true),
        (4, Array("trusted.".utf8), false), (6, Array("security.".utf8), false), (7, Array("system.".utf8), false),
    ]

    static func isAccessControlList(_ index: UInt8) -> Bool { index == 2 || index == 3 }

    static func split(_ name: ByteString) -> (index: UInt8, suffix: ArraySlice<UInt8>) {
        for prefix in prefixes where prefix.isWhole ? name.bytes == prefix.text : name.bytes.starts(with: prefix.text) {
            return (prefix.index, name.bytes.dropFirst(prefix.text.count))
        }
        return (0, name.bytes[...])
    }

    /// Nil if the index is unknown.
    static func join(_ index: UInt8, _ suffix: some Collection<UInt8>) -> ByteString? {
        if index == 0 { return ByteString(Array(suffix)) }
        guard let prefix = prefixes.first(where: { $0.index == index }) else { return nil }
        return ByteString(prefix.text + suffix)
    }

    /// `ext4_xattr_hash_entry`. Bytes of the name count as unsigned; kernels accept both forms.
    /// - Parameter value: The value, padded with zeros to a multiple of four bytes.
    static func hash(name: some Collection<UInt8>, value: [UInt8], isSigned: Bool = false) -> UInt32 {
        var hash: UInt32 = 0
        for byte in name {
            let number = isSigned ? UInt32(bitPattern: Int32(Int8(bitPattern: byte))) : UInt32(byte)
            hash = (hash << 5 | hash >> 27) ^ number
        }
        for at in stride(from: 0, to: value.count & ~3, by: 4) { hash = (hash << 16 | hash >> 16) ^ value.load(UInt32.self, at: at) }
        return hash
    }

    static func padded(_ value: [UInt8]) -> [UInt8] {
        value + [UInt8](repeating: 0, count: Ext4Format.align(value.count, to: 4) - value.count)
    }
}

/// The extended attributes of an inode, each with its place: in the inode, in a block of its own, or with the value in another inode.
struct AttributeList: Sendable {
    struct Entry: Sendable {
        var index: UInt8
        var suffix: [UInt8]
        /// The stored form of the value.
        var value: [UInt8]
        var isInBody = false
        /// Whether the value has an inode of its own.
        var isSeparate = false

        var length: Int { AttributeLayout.entryLength(name: suffix.count) }
        var size: Int { length + (isSeparate ? 0 : Ext4Format.align(value.count, to: 4)) }
    }

    /// The room for entries and values. Four zero bytes end the entries.
    static let bodySpace =
        Ext4Format.inodeSize - InodeLayout.attributes - AttributeLayout.bodyHeaderSize - endSize
    static let blockSpace = Ext4Format.blockSize - AttributeLayout.headerSize - endSize
    private static let endSize = 4

    /// In ascending order of index, length and bytes of the name, as the kernel searches them.
    private(set) var entries: [Entry] = []

    var hasBlock: Bool { entries.contains { !$0.isInBody } }
    var hasBody: Bool { entries.contains { $0.isInBody } }
    var separateValues: [[UInt8]] { entries.filter(\.isSeparate).map(\.value) }

    init(_ attributes: [ExtendedAttribute]) throws(Unwritable) {
        for attribute in attributes {
            guard !attribute.name.isEmpty, !attribute.name.bytes.contains(0) else {
                throw Unwritable(.attributeNameInvalid(attribute.name))
            }
            let (index, suffix) = AttributeNames.split(attribute.name)
            guard suffix.count <= 255 else { throw Unwritable(.attributeNameTooLong(attribute.name)) }
            var value = attribute.value.bytes
            guard value.count <= Ext4Format.maximumValueSize else {
                throw Unwritable(.attributeValueTooLong(attribute.name, bytes: value.count))
            }
            if AttributeNames.isAccessControlList(index) {
                guard let stored = AccessControlList.stored(value) else { throw Unwritable(.accessControlListInvalid(attribute.name)) }
                value = stored
            }
            entries.append(Entry(index: index, suffix: Array(suffix), value: value))
        }
        entries.sort {
            if $0.index != $1.index { return $0.index < $1.index }
            if $0.suffix.count != $1.suffix.count { return $0.suffix.count < $1.suffix.count }
            return $0.suffix.lexicographicallyPrecedes($1.suffix)
        }
        try place()
    }

    private mutating func place() throws(Unwritable) {
        var room = Self.bodySpace
        for index in entries.indices where entries[index].size <= room {
            entries[index].isInBody = true
            room -= entries[index].size
        }
        var used = 0
        for entry in entries where !entry.isInBody { used += entry.size }
        while used > Self.blockSpace {
            // The largest value that is left, and the first of those, gets an inode of its own.
            var largest: Int?
            for (index, entry) in entries.enumerated() where !entry.isInBody && !entry.isSeparate && !entry.value.isEmpty {
                if let now = largest, entry.value.count <= entries[now].value.count { continue }
                largest = index
            }
            guard let largest else { throw Unwritable(.attributesTooLarge) }
            used -= entries[largest].size
            entries[largest].isSeparate = true
            if entries[largest].size <= room {
                entries[largest].isInBody = true
                room -= entries[largest].size
            } else {
                used += entries[largest].size
            }
        }
    }

    /// The bytes of an inode after its extra fields; empty if no attribute is there.
    func body(_ checksums: Checksums, inodeOf: ([UInt8]) -> UInt32) -> [UInt8] {
        guard hasBody else { return [] }
        var bytes = [UInt8](repeating: 0, count: Ext4Format.inodeSize - InodeLayout.attributes)
        bytes.put(Ext4Format.attributeMagic, at: 0)
        // Offsets of values are counted from the first entry.
        let header = AttributeLayout.bodyHeaderSize
        write(entries.filter(\.isInBody), to: &bytes, first: header, base: header, isBlock: false, checksums, inodeOf)
        return bytes
    }

    /// The block of attributes that are not in the inode.
    func block(at number: UInt64, _ checksums: Checksums, inodeOf: ([UInt8]) -> UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        bytes.put(Ext4Format.attributeMagic, at: AttributeLayout.magic)
        bytes.put(UInt32(1), at: AttributeLayout.references)
        bytes.put(UInt32(1), at: AttributeLayout.blocks)
        let list = entries.filter { !$0.isInBody }
        let hash = write(list, to: &bytes, first: AttributeLayout.headerSize, base: 0, isBlock: true, checksums, inodeOf)
        bytes.put(hash, at: AttributeLayout.hash)
        bytes.put(checksums.attributeBlock(bytes, at: number), at: AttributeLayout.checksum)
        return bytes
    }

    /// Returns the hash of all entries (`ext4_xattr_rehash`).
    @discardableResult
    private func write(
        _ list: [Entry], to bytes: inout [UInt8], first: Int, base: Int, isBlock: Bool, _ checksums: Checksums,
        _ inodeOf: ([UInt8]) -> UInt32
    ) -> UInt32 {
        var at = first
        var end = bytes.count
        var total: UInt32 = 0
        var isShareable = true
        for entry in list {
            bytes.put(UInt8(entry.suffix.count), at: at + AttributeLayout.nameLength)
            bytes.put(entry.index, at: at + AttributeLayout.nameIndex)
            bytes.put(UInt32(entry.value.count), at: at + AttributeLayout.valueSize)
            bytes.put(entry.suffix, at: at + AttributeLayout.entrySize)
            var hash: UInt32 = 0
            if entry.isSeparate {
                bytes.put(inodeOf(entry.value), at: at + AttributeLayout.valueInode)
                var word = [UInt8](repeating: 0, count: 4)
                word.put(crc32c(checksums.seed, entry.value), at: 0)
                hash = AttributeNames.hash(name: entry.suffix, value: word)
            } else {
                let value = AttributeNames.padded(entry.value)
                if !value.isEmpty {
                    end -= value.count
                    bytes.put(value, at: end)
                    bytes.put(UInt16(end - base), at: at + AttributeLayout.valueOffset)
                }
                if isBlock { hash = AttributeNames.hash(name: entry.suffix, value: value) }
            }
            bytes.put(hash, at: at + AttributeLayout.entryHash)
            if hash == 0 { isShareable = false }
            total = (total << 16 | total >> 16) ^ hash
            at += entry.length
        }
        return isShareable ? total : 0
    }
}

/// A reason without its path, which the caller knows.
struct Unwritable: Error {
    var reason: Ext4Error.Reason
    init(_ reason: Ext4Error.Reason) { self.reason = reason }
}
