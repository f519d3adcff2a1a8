import ComposefsBytes
import ComposefsTestSupport
import Testing

@testable import ComposefsLinuxSystem

/// Which other users could change a directory.
@Suite(.enabled(if: Host.effectiveUserID == 0, "needs root"))
struct OwnershipTests {
    private func fault(
        trusted: [UInt32] = [0], uid: UInt32 = 0, gid: UInt32 = 0, mode: UInt32, list: [UInt8]? = nil
    ) throws -> OwnershipFault? {
        try withScratch { scratch, _ in
            try scratch.makeDirectory(at: "d")
            let directory = try scratch.open(at: "d", [.readOnly, .directory])
            try directory.changeOwner(uid: uid, gid: gid)
            try directory.changeMode(mode)
            if let list { try directory.setExtendedAttribute("system.posix_acl_access", ByteString(list)) }
            return try OwnershipCheck(trusted: trusted).fault(of: scratch.open(at: "d", [.pathOnly, .directory]))
        }
    }

    @Test func ownerAndModes() throws {
        #expect(try fault(mode: 0o755) == nil)
        #expect(try fault(mode: 0o2750) == nil)
        #expect(try fault(uid: 65534, mode: 0o700) == .owner(65534))
        #expect(try fault(trusted: [0, 65534], uid: 65534, mode: 0o700) == nil)
        #expect(try fault(mode: 0o757) == .everyone)
        // A user who may not remove others' entries can still add entries.
        #expect(try fault(mode: 0o1777) == .everyone)
        #expect(try fault(gid: 65534, mode: 0o775) == .group(65534))
        // A group without an account.
        #expect(try fault(gid: 64999, mode: 0o770) == .group(64999))
        // Root's private group, as with a umask of 002.
        #expect(try fault(mode: 0o775) == nil)
        // The account daemon has a private group too, but it is not private to root.
        #expect(try fault(trusted: [1, 0], uid: 1, gid: 1, mode: 0o775) == nil)
        #expect(try fault(trusted: [1, 0], uid: 0, gid: 1, mode: 0o775) == .group(1))
    }

    /// version 2, then tag, permissions, ID: owner, user 65534, group, mask, others.
    private func list(user: UInt16, group: UInt16 = 5, mask: UInt16) -> [UInt8] {
        var bytes: [UInt8] = [2, 0, 0, 0]
        for (tag, permissions, id) in [
            (UInt16(0x01), UInt16(7), UInt32.max), (0x02, user, 65534), (0x04, group, UInt32.max), (0x10, mask, UInt32.max),
            (0x20, 5, UInt32.max),
        ] {
            bytes += [UInt8(tag), 0, UInt8(permissions), 0] + (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) }
        }
        return bytes
    }

    @Test func accessLists() throws {
        #expect(try fault(mode: 0o755, list: list(user: 7, mask: 7)) == .accessList)
        // The mask removes the permission.
        #expect(try fault(mode: 0o755, list: list(user: 7, mask: 5)) == nil)
        #expect(try fault(mode: 0o755, list: list(user: 5, mask: 7)) == nil)
        #expect(try fault(trusted: [0, 65534], mode: 0o755, list: list(user: 7, mask: 7)) == nil)
        #expect(try fault(gid: 65534, mode: 0o755, list: list(user: 5, group: 7, mask: 7)) == .group(65534))
        #expect(try fault(gid: 65534, mode: 0o755, list: list(user: 5, group: 5, mask: 7)) == nil)
    }
}
