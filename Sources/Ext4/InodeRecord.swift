internal import ComposefsBytes
internal import ComposefsFileTree

/// An inode as it is written.
struct InodeRecord {
    var mode: UInt16
    var links: UInt16
    var uid: UInt32 = 0
    var gid: UInt32 = 0
    var size: UInt64 = 0
    var time = Timestamp(seconds: 0)
    /// All blocks that belong to the inode, in blocks of the file system.
    var blocks: UInt64 = 0
    var flags: UInt32 = 0
    var blockMap: [UInt8] = []
    var attributeBlock: UInt64 = 0
    /// The bytes after the extra fields.
    var attributes: [UInt8] = []

    func encode(_ number: UInt32, _ checksums: Checksums) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ext4Format.inodeSize)
        bytes.put(mode, at: InodeLayout.mode)
        bytes.put(UInt16(truncatingIfNeeded: uid), at: InodeLayout.uidLow)
        bytes.put(UInt16(truncatingIfNeeded: uid >> 16), at: InodeLayout.uidHigh)
        bytes.put(UInt16(truncatingIfNeeded: gid), at: InodeLayout.gidLow)
        bytes.put(UInt16(truncatingIfNeeded: gid >> 16), at: InodeLayout.gidHigh)
        bytes.put(UInt32(truncatingIfNeeded: size), at: InodeLayout.sizeLow)
        bytes.put(UInt32(truncatingIfNeeded: size >> 32), at: InodeLayout.sizeHigh)
        bytes.put(links, at: InodeLayout.links)
        let sectors = blocks * 8
        bytes.put(UInt32(truncatingIfNeeded: sectors), at: InodeLayout.sectorsLow)
        bytes.put(UInt16(truncatingIfNeeded: sectors >> 32), at: InodeLayout.sectorsHigh)
        bytes.put(flags, at: InodeLayout.flags)
        bytes.put(blockMap, at: InodeLayout.blockMap)
        bytes.put(UInt32(truncatingIfNeeded: attributeBlock), at: InodeLayout.attributeBlockLow)
        bytes.put(UInt16(truncatingIfNeeded: attributeBlock >> 32), at: InodeLayout.attributeBlockHigh)
        bytes.put(Ext4Format.extraInodeSize, at: InodeLayout.extraSize)
        let (seconds, extra) = InodeTime.encode(time)
        for field in [InodeLayout.accessed, InodeLayout.changed, InodeLayout.modified, InodeLayout.created] {
            bytes.put(seconds, at: field)
        }
        for field in [InodeLayout.accessedExtra, InodeLayout.changedExtra, InodeLayout.modifiedExtra, InodeLayout.createdExtra] {
            bytes.put(extra, at: field)
        }
        bytes.put(attributes, at: InodeLayout.attributes)
        Self.seal(&bytes, number, checksums)
        return bytes
    }

    /// The inode of an extended attribute's value. The times have other meanings there (`ext4_xattr_inode_set_hash`, `…_set_ref`).
    func encodeValue(_ number: UInt32, hash: UInt32, references: UInt64, _ checksums: Checksums) -> [UInt8] {
        var bytes = encode(number, checksums)
        bytes.put(hash, at: InodeLayout.accessed)
        bytes.put(UInt32(truncatingIfNeeded: references >> 32), at: InodeLayout.changed)
        bytes.put(UInt32(truncatingIfNeeded: references), at: InodeLayout.versionLow)
        Self.seal(&bytes, number, checksums)
        return bytes
    }

    static func seal(_ bytes: inout [UInt8], _ number: UInt32, _ checksums: Checksums) {
        let sum = bytes.withUnsafeBytes { checksums.inode($0, number: number) }
        bytes.put(UInt16(truncatingIfNeeded: sum), at: InodeLayout.checksumLow)
        bytes.put(UInt16(truncatingIfNeeded: sum >> 16), at: InodeLayout.checksumHigh)
    }

    /// The block map of a device (`new_encode_dev`, or the old form if both numbers fit in a byte).
    /// - Parameter number: A device number as in `st_rdev`. Nil if it is too large.
    static func blockMap(device number: UInt64) -> [UInt8]? {
        let (major, minor) = Content.majorAndMinor(ofDevice: number)
        guard major < 1 << 12, minor < 1 << 20 else { return nil }
        var map = [UInt8](repeating: 0, count: Ext4Format.blockMapSize)
        if major < 256, minor < 256 {
            map.put(major << 8 | minor, at: 0)
        } else {
            map.put(minor & 0xff | major << 8 | (minor & ~0xff) << 12, at: 4)
        }
        return map
    }
}

/// Times of 34 bits: a signed word, and two more bits beside the nanoseconds (`ext4_encode_extra_time`).
enum InodeTime {
    /// Times outside the range become its first or last second.
    static func encode(_ time: Timestamp) -> (seconds: UInt32, extra: UInt32) {
        let clamped = min(max(time.seconds, Ext4Format.earliestSecond), Ext4Format.latestSecond)
        let nanoseconds = clamped == time.seconds ? time.nanoseconds : clamped < time.seconds ? 999_999_999 : 0
        let low = UInt32(truncatingIfNeeded: clamped)
        let epoch = UInt32(truncatingIfNeeded: (clamped - Int64(Int32(bitPattern: low))) >> 32) & 3
        return (low, nanoseconds << 2 | epoch)
    }

    /// Nil if there are more than 999,999,999 nanoseconds.
    static func decode(_ seconds: UInt32, _ extra: UInt32) -> Timestamp? {
        guard extra >> 2 < 1_000_000_000 else { return nil }
        return Timestamp(seconds: Int64(Int32(bitPattern: seconds)) + Int64(extra & 3) << 32, nanoseconds: extra >> 2)
    }
}
