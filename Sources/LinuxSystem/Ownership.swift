internal import ComposefsBytes
internal import Glibc
internal import Synchronization

/// The reason why another user could change a file or the entries of a directory.
public enum OwnershipFault: Sendable, Hashable, CustomStringConvertible {
    /// Another user owns it; the value is the user's ID.
    case owner(UInt32)
    /// A group that may have other members can write to it; the value is the group's ID.
    case group(UInt32)
    /// Its access control list lets another user or group write to it.
    case accessList
    /// Every user can write to it.
    case everyone

    /// The fault as the rest of a sentence that begins with the file's name.
    public var description: String {
        switch self {
        case .owner(let uid): "belongs to another user (uid \(uid))"
        case .group(let gid): "can be written to by the group with gid \(gid)"
        case .accessList: "can be written to by others through its access control list"
        case .everyone: "can be written to by every user"
        }
    }
}

/// Checks whether users other than the process's own user and root can change a file or the entries of a directory.
///
/// This is git's rule for the owner of a repository (safe.directory), including SUDO_UID, extended to write permission. A group whose only
/// member is its owner does not count as another user: distributions give each user such a group, and a umask of 002.
public final class OwnershipCheck: Sendable {
    private let trusted: [UInt32]
    /// A lookup of a group: whether the owner is its only member.
    private struct Lookup {
        var group: UInt32
        var user: UInt32
        var isPrivate: Bool
    }

    /// Few, and a dictionary would cost more to set up than the rest of a check.
    private let lookups = Mutex<[Lookup]>([])

    /// Creates a check for the process's effective user. For root, the user who called sudo is trusted too.
    public convenience init() {
        let user = Host.effectiveUserID
        var trusted = [user, 0]
        if user == 0, let caller = Host.environment("SUDO_UID"), let uid = UInt32(String(decoding: caller.bytes, as: UTF8.self)) {
            trusted.append(uid)
        }
        self.init(trusted: trusted)
    }

    /// - Parameter trusted: The users that may own the file and write to it.
    init(trusted: [UInt32]) { self.trusted = trusted }

    /// The fault of an open file or directory; nil if there is none.
    public func fault(of file: borrowing FileDescriptor) throws(SystemError) -> OwnershipFault? {
        let status = try file.status()
        let fault = fault(of: status)
        // With an access control list, the group bits of the mode are its mask, which does not describe the group's permissions.
        guard status.mode & 0o020 != 0, fault == nil || fault == .group(status.gid),
            let list = try file.extendedAttribute("system.posix_acl_access")
        else { return fault }
        return self.fault(ofAccessList: list.bytes, status)
    }

    /// The fault by the status alone, which cannot distinguish an access control list from a writable group.
    public func fault(of status: FileStatus) -> OwnershipFault? {
        guard trusted.contains(status.uid) else { return .owner(status.uid) }
        if status.mode & 0o002 != 0 { return .everyone }
        guard status.mode & 0o020 != 0, !isPrivate(status.gid, of: status.uid) else { return nil }
        return .group(status.gid)
    }

    /// Whether the group is the user's private group: it has the user's name, is the user's primary group and lists no other member.
    private func isPrivate(_ group: UInt32, of user: UInt32) -> Bool {
        if let known = lookups.withLock({ $0.first { $0.group == group && $0.user == user } }) { return known.isPrivate }
        let found = Accounts.isPrivateGroup(group, of: user)
        lookups.withLock { $0.append(Lookup(group: group, user: user, isPrivate: found)) }
        return found
    }

    /// Reads the kernel's form of an access control list (linux/posix_acl_xattr.h): u32 version, then u16 tag, u16 permissions and u32 ID
    /// for each entry. The group bits of the mode show the mask, which allows writing here.
    private func fault(ofAccessList list: [UInt8], _ status: FileStatus) -> OwnershipFault? {
        let (namedUser, owningGroup, namedGroup, write): (UInt16, UInt16, UInt16, UInt16) = (0x02, 0x04, 0x08, 0x02)
        return list.withUnsafeBytes { bytes in
            var offset = 4
            while offset + 8 <= bytes.count {
                let tag = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
                let permissions = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + 2, as: UInt16.self))
                let id = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
                offset += 8
                guard permissions & write != 0 else { continue }
                if tag == namedUser, !trusted.contains(id) { return .accessList }
                if tag == namedGroup, !isPrivate(id, of: status.uid) { return .accessList }
                if tag == owningGroup, !isPrivate(status.gid, of: status.uid) { return .group(status.gid) }
            }
            return nil
        }
    }
}

/// Users and groups from the C library's name service.
private enum Accounts {
    /// The largest buffer in bytes that is offered to the C library.
    private static let largestBuffer = 1 << 20

    static func isPrivateGroup(_ group: UInt32, of user: UInt32) -> Bool {
        guard let account = account(user), account.group == group, let entry = entry(group) else { return false }
        return entry.name == account.name && entry.members.allSatisfy { $0 == account.name || $0 == "root" }
    }

    private static func account(_ user: UInt32) -> (name: String, group: UInt32)? {
        withBuffer { buffer, size -> (found: (name: String, group: UInt32)?, status: Int32) in
            var entry = passwd()
            var result: UnsafeMutablePointer<passwd>?
            let status = getpwuid_r(user, &entry, buffer, size, &result)
            guard status == 0, result != nil, let name = entry.pw_name else { return (nil, status) }
            return ((String(cString: name), entry.pw_gid), 0)
        }
    }

    private static func entry(_ group: UInt32) -> (name: String, members: [String])? {
        withBuffer { buffer, size -> (found: (name: String, members: [String])?, status: Int32) in
            var entry = Glibc.group()
            var result: UnsafeMutablePointer<Glibc.group>?
            let status = getgrgid_r(group, &entry, buffer, size, &result)
            guard status == 0, result != nil, let name = entry.gr_name else { return (nil, status) }
            var members: [String] = []
            var next = entry.gr_mem
            while let at = next, let member = at.pointee {
                members.append(String(cString: member))
                next = at + 1
            }
            return ((String(cString: name), members), 0)
        }
    }

    /// Repeats the call with a larger buffer while it fails with ERANGE.
    private static func withBuffer<Found>(
        _ body: (UnsafeMutablePointer<CChar>, Int) -> (found: Found?, status: Int32)
    ) -> Found? {
        var size = 4096
        while size <= largestBuffer {
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            let (found, status) = body(buffer, size)
            guard status == ERANGE else { return found }
            size *= 4
        }
        return nil
    }
}
