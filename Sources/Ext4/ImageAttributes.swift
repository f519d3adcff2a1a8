internal import ComposefsBytes
public import ComposefsFileTree
internal import ComposefsHashing

extension Ext4Image {
    /// The extended attributes of an inode, in ascending byte order of their names. Lists of access have the form that the kernel shows.
    public func attributes(of inode: Ext4Inode) throws -> [ExtendedAttribute] {
        var found: [ExtendedAttribute] = []
        let body = inode.attributes
        if body.count >= AttributeLayout.bodyHeaderSize, body.load(UInt32.self, at: 0) == Ext4Format.attributeMagic {
            let first = AttributeLayout.bodyHeaderSize
            try read(body, first: first, base: first, block: nil, inode, &found)
        }
        if inode.attributeBlock != 0 {
            let bytes = try block(inode.attributeBlock, inode: inode.number)
            guard bytes.load(UInt32.self, at: AttributeLayout.magic) == Ext4Format.attributeMagic,
                bytes.load(UInt32.self, at: AttributeLayout.blocks) == 1, bytes.load(UInt32.self, at: AttributeLayout.references) > 0
            else {
                throw Ext4Error.damaged(
                    inode: inode.number, offset: inode.attributeBlock << Ext4Format.blockBits, "its block of attributes has a wrong header")
            }
            let sum = bytes.load(UInt32.self, at: AttributeLayout.checksum)
            try checkSum(
                sum, superblock.checksums.attributeBlock(bytes, at: inode.attributeBlock), inode: inode.number, block: inode.attributeBlock,
                "its block of attributes")
            try read(bytes, first: AttributeLayout.headerSize, base: 0, block: inode.attributeBlock, inode, &found)
        }
        found.sort { $0.name < $1.name }
        for (one, next) in zip(found, found.dropFirst()) where one.name == next.name {
            throw Ext4Error.damaged(inode: inode.number, offset: 0, "attribute '\(one.name)' occurs twice")
        }
        return found
    }

    /// Reads entries up to four zero bytes.
    /// - Parameters:
    ///   - base: The offset from which the offsets of values are counted.
    ///   - block: The number of the block, or nil for the entries in an inode.
    private func read(
        _ bytes: [UInt8], first: Int, base: Int, block: UInt64?, _ inode: Ext4Inode, _ found: inout [ExtendedAttribute]
    ) throws {
        func damaged(_ what: String) -> Ext4Error {
            .damaged(inode: inode.number, offset: (block ?? 0) << Ext4Format.blockBits, "its extended attributes: \(what)")
        }
        var at = first
        var values: [Range<Int>] = []
        while true {
            guard bytes.count - at >= 4 else { throw damaged("there is no end") }
            if bytes.load(UInt32.self, at: at) == 0 { break }
            let nameLength = Int(bytes[at + AttributeLayout.nameLength])
            guard bytes.count - at >= AttributeLayout.entryLength(name: nameLength) else { throw damaged("an entry exceeds its space") }
            let start = at + AttributeLayout.entrySize
            let suffix = Array(bytes[start..<(start + nameLength)])
            let index = bytes[at + AttributeLayout.nameIndex]
            guard let name = AttributeNames.join(index, suffix), !name.isEmpty, !suffix.contains(0),
                !AttributeNames.isAccessControlList(index) || suffix.isEmpty
            else { throw damaged("a name with index \(index)") }
            let size = Int(bytes.load(UInt32.self, at: at + AttributeLayout.valueSize))
            guard size <= Ext4Format.maximumValueSize else { throw damaged("'\(name)' has \(size) bytes") }
            let hash = bytes.load(UInt32.self, at: at + AttributeLayout.entryHash)
            let separate = bytes.load(UInt32.self, at: at + AttributeLayout.valueInode)
            var value: [UInt8] = []
            var hashed: [UInt8] = []
            if separate != 0 {
                value = try self.value(separate, size: size, inode)
                hashed = [UInt8](repeating: 0, count: 4)
                hashed.put(crc32c(superblock.checksums.seed, value), at: 0)
            } else if size > 0 {
                let from = base + Int(bytes.load(UInt16.self, at: at + AttributeLayout.valueOffset))
                let padded = Ext4Format.align(size, to: 4)
                guard from > at, from <= bytes.count, padded <= bytes.count - from else {
                    throw damaged("the value of '\(name)' exceeds its space")
                }
                values.append(from..<(from + padded))
                value = Array(bytes[from..<(from + size)])
                hashed = AttributeNames.padded(value)
            }
            if block != nil || separate != 0 {
                let isRight = [false, true].contains { AttributeNames.hash(name: suffix, value: hashed, isSigned: $0) == hash }
                try checkSum(isRight ? 0 : 1, 0, inode: inode.number, block: block ?? 0, "'\(name)'")
            }
            if AttributeNames.isAccessControlList(index) {
                guard let list = AccessControlList.attribute(value) else { throw damaged("'\(name)' is no access control list") }
                value = list
            }
            found.append(ExtendedAttribute(name: name, value: ByteString(value)))
            at += AttributeLayout.entryLength(name: nameLength)
        }
        values.sort { $0.lowerBound < $1.lowerBound }
        if let lowest = values.first, lowest.lowerBound < at + 4 { throw damaged("a value overlaps the entries") }
        for (one, next) in zip(values, values.dropFirst()) where next.lowerBound < one.upperBound { throw damaged("two values overlap") }
    }

    /// A value that has an inode of its own.
    private func value(_ number: UInt32, size: Int, _ owner: Ext4Inode) throws -> [UInt8] {
        let inode = try inode(number)
        guard superblock.features.incompatible & Features.Incompatible.attributeValues != 0, inode.kind == .regular,
            inode.flags & Ext4Format.flagAttributeValue != 0, inode.size == UInt64(size)
        else { throw Ext4Error.damaged(inode: owner.number, offset: 0, "inode \(number) does not hold the value of an attribute") }
        let value = try content(of: inode, limit: Ext4Format.maximumValueSize)
        try checkSum(inode.valueHash, crc32c(superblock.checksums.seed, value), inode: number, block: 0, "the value of an attribute")
        return value
    }
}
