import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Testing

@testable import ComposefsFuse

@Suite struct Requests {
    @Test func header() throws {
        let bytes = request(.lookup, 0x1122_3344_5566_7788, node: 42, uid: 1000, text("name"))
        try bytes.withUnsafeBytes { bytes in
            let request = try #require(FuseRequest(bytes))
            #expect(request.operation == .lookup && request.unique == 0x1122_3344_5566_7788 && request.node == 42 && request.uid == 1000)
            #expect(request.name?.elementsEqual("name".utf8) == true)
        }
    }

    /// The constants of linux/fuse.h.
    @Test func operations() {
        let numbers: [(FuseOperation, UInt32)] = [
            (.lookup, 1), (.forget, 2), (.getAttributes, 3), (.setAttributes, 4), (.readLink, 5), (.symlink, 6), (.makeNode, 8),
            (.makeDirectory, 9), (.unlink, 10), (.removeDirectory, 11), (.rename, 12), (.link, 13), (.open, 14), (.read, 15), (.write, 16),
            (.statFileSystem, 17), (.release, 18), (.sync, 20), (.setExtendedAttribute, 21), (.getExtendedAttribute, 22),
            (.listExtendedAttributes, 23), (.removeExtendedAttribute, 24), (.flush, 25), (.initialize, 26), (.openDirectory, 27),
            (.readDirectory, 28), (.releaseDirectory, 29), (.syncDirectory, 30), (.getLock, 31), (.setLock, 32), (.setLockWaiting, 33),
            (.access, 34), (.create, 35), (.interrupt, 36), (.mapBlock, 37), (.destroy, 38), (.ioctl, 39), (.poll, 40),
            (.notifyReply, 41), (.forgetMany, 42), (.allocate, 43), (.readDirectoryPlus, 44), (.renameWithFlags, 45), (.seek, 46),
            (.copyRange, 47), (.setUpMapping, 48), (.removeMapping, 49), (.syncFileSystem, 50), (.createTemporary, 51),
            (.extendedStatus, 52), (.copyLongRange, 53),
        ]
        for (operation, number) in numbers { #expect(operation.rawValue == number, "\(operation)") }
        #expect(numbers.count == FuseOperation.allCases.count)
    }

    @Test func truncated() {
        let whole = request(.lookup, 1, text("name"))
        for count in 0..<whole.count {
            let isRequest = Array(whole[..<count]).withUnsafeBytes { FuseRequest($0) != nil }
            #expect(!isRequest, "\(count) bytes")
        }
        // A length that differs from the message's.
        for change in [-1, 1, 1 << 20] {
            var bytes = whole
            let length = UInt32(whole.count + change)
            withUnsafeBytes(of: length) { bytes.replaceSubrange(0..<4, with: $0) }
            let isRequest = bytes.withUnsafeBytes { FuseRequest($0) != nil }
            #expect(!isRequest)
        }
    }

    @Test func namesWithoutEnd() {
        for arguments in [[], [0x61], [0], [0, 0x61], Array(repeating: 0x61, count: 300)] as [[UInt8]] {
            let hasName = request(.lookup, 1, arguments).withUnsafeBytes { FuseRequest($0)?.name != nil }
            #expect(!hasName, "\(arguments)")
        }
    }

    @Test func secondFlagWordCountsOnlyWhenAnnounced() throws {
        for isExtended in [true, false] {
            let low: UInt64 = isExtended ? 1 << 30 : 0
            let bytes = initialization(flags: low | 1 << 37)
            let flags = bytes.withUnsafeBytes { FuseRequest($0).flatMap { FuseInitialization($0)?.flags } }
            #expect(flags?.contains(.passthrough) == isExtended)
        }
        // Linux 5.4 does not send a second word.
        var short = initialization(minor: 31)
        short.removeLast(48)
        withUnsafeBytes(of: UInt32(short.count)) { short.replaceSubrange(0..<4, with: $0) }
        let minor = short.withUnsafeBytes { FuseRequest($0).flatMap { FuseInitialization($0)?.minor } }
        #expect(minor == 31)
    }
}

@Suite struct Agreement {
    private let tree = FileTree(root: Metadata(permissions: 0o755))

    @Test func versions() throws {
        for minor: UInt32 in [31, 38, 44, 45, 90] {
            let conversation = try Conversation(tree, first: initialization(minor: minor, flags: 0))
            let reply = try #require(conversation.agreed)
            #expect(reply.error == 0 && reply.body.count == 64)
            #expect(reply.body.integer(0, UInt32.self) == 7 && reply.body.integer(4, UInt32.self) == min(minor, 44))
            #expect(reply.body.integer(8, UInt32.self) == 131_072)
            // Only flags that were offered.
            #expect(reply.body.integer(12, UInt32.self) == 0 && reply.body.integer(32, UInt32.self) == 0)
        }
    }

    @Test func flags() throws {
        let reply = try #require(Conversation(tree, first: initialization()).agreed)
        // ASYNC_READ, EXPORT_SUPPORT, DO_READDIRPLUS, ASYNC_DIO, PARALLEL_DIROPS, POSIX_ACL, MAX_PAGES, CACHE_SYMLINKS, NO_OPENDIR_SUPPORT,
        // EXPLICIT_INVAL_DATA, INIT_EXT.
        let expected: UInt32 = [0, 4, 13, 15, 18, 20, 22, 23, 24, 25, 30].reduce(0) { $0 | 1 << UInt32($1) }
        #expect(reply.body.integer(12, UInt32.self) == expected)
        #expect(reply.body.integer(28, UInt16.self) == 256)
        // PASSTHROUGH and the stacking depth that it needs.
        #expect(reply.body.integer(32, UInt32.self) == 1 << 5 && reply.body.integer(36, UInt32.self) == 1)
    }

    @Test func oldKernelsAreRefused() {
        #expect(throws: FuseError.kernelTooOld(major: 7, minor: 30)) { try Conversation(tree, first: initialization(minor: 30)) }
        #expect(throws: FuseError.kernelTooOld(major: 6, minor: 99)) { try Conversation(tree, first: initialization(major: 6, minor: 99)) }
    }

    @Test func anythingElseFirst() {
        #expect(throws: FuseError.self) { try Conversation(tree, first: request(.getAttributes, 2)) }
        #expect(throws: FuseError.self) { try Conversation(tree, first: [1, 2, 3]) }
        #expect(throws: FuseError.self) { try Conversation(tree, first: request(.initialize, 2, [7, 0, 0, 0])) }
    }
}
