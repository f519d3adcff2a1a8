internal import ComposefsBytes

/// Access control lists in two forms: the kernel's extended attribute (include/uapi/linux/posix_acl_xattr.h), which archives and EROFS images have,
/// and ext4's own (fs/ext4/acl.h), which has an ID only for named users and groups.
enum AccessControlList {
    private static let attributeVersion: UInt32 = 2
    private static let storedVersion: UInt32 = 1
    private static let attributeEntrySize = 8
    private static let shortEntrySize = 4
    /// `ACL_UNDEFINED_ID`.
    private static let undefined: UInt32 = .max

    /// ACL_USER and ACL_GROUP name a user or a group; the other tags do not.
    private static func hasID(_ tag: UInt16) -> Bool? {
        switch tag {
        case 0x02, 0x08: true
        case 0x01, 0x04, 0x10, 0x20: false
        default: nil
        }
    }

    /// Converts the attribute's value to ext4's form. Nil if the value is not a list.
    static func stored(_ value: [UInt8]) -> [UInt8]? {
        guard value.count >= 4, (value.count - 4) % attributeEntrySize == 0, value.load(UInt32.self, at: 0) == attributeVersion else {
            return nil
        }
        var out = ByteWriter(capacity: value.count)
        out.u32(storedVersion)
        for at in stride(from: 4, to: value.count, by: attributeEntrySize) {
            let tag = value.load(UInt16.self, at: at)
            guard let hasID = hasID(tag) else { return nil }
            out.u16(tag)
            out.u16(value.load(UInt16.self, at: at + 2))
            if hasID { out.u32(value.load(UInt32.self, at: at + 4)) }
        }
        return out.bytes
    }

    /// Converts ext4's form to the attribute's value. Nil if the bytes are not a list.
    static func attribute(_ stored: [UInt8]) -> [UInt8]? {
        guard stored.count >= 4, stored.load(UInt32.self, at: 0) == storedVersion else { return nil }
        var out = ByteWriter(capacity: 2 * stored.count)
        out.u32(attributeVersion)
        var at = 4
        while at < stored.count {
            guard stored.count - at >= shortEntrySize, let hasID = hasID(stored.load(UInt16.self, at: at)) else { return nil }
            out.u16(stored.load(UInt16.self, at: at))
            out.u16(stored.load(UInt16.self, at: at + 2))
            at += shortEntrySize
            guard hasID else {
                out.u32(undefined)
                continue
            }
            guard stored.count - at >= 4 else { return nil }
            out.u32(stored.load(UInt32.self, at: at))
            at += 4
        }
        return out.bytes
    }
}
