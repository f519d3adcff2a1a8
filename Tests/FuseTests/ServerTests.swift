import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Glibc
import Synchronization
import Testing

import struct ComposefsFileTree.ExtendedAttribute

@testable import ComposefsFuse

/// The answers of the server, seen from the kernel's end.
@Suite struct Server {
    private let big = [UInt8]((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) })

    private struct Sample {
        var tree = FileTree(root: Metadata(permissions: 0o755, uid: 3, modified: Timestamp(seconds: -5, nanoseconds: 7)))
        let objects = MemoryObjects()
        var big: ObjectID
        var missing: ObjectID
        var wrong: ObjectID

        init(_ content: [UInt8]) throws {
            big = objects.add(content)
            let other = [UInt8]("other".utf8).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
            missing = other
            wrong = [UInt8]("wrong".utf8).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
            _ = objects.add([UInt8]("wrung".utf8), as: wrong)
            let plain = Metadata(permissions: 0o640, uid: 1, gid: 2, modified: Timestamp(seconds: 1_700_000_000, nanoseconds: 123))
            let root = FileTree.root
            let linked = try tree.addLeaf("big", in: root, plain, .external(big, size: UInt64(content.count)))
            try tree.addLink("again", in: root, to: linked)
            _ = try tree.addLeaf("missing", in: root, plain, .external(missing, size: 5))
            _ = try tree.addLeaf("wrong", in: root, plain, .external(wrong, size: 5))
            _ = try tree.addLeaf("short", in: root, plain, .external(big, size: 5))
            _ = try tree.addLeaf("small", in: root, plain, .inline("hello"))
            _ = try tree.addLeaf("hole", in: root, plain, .sparse(size: 10_000))
            _ = try tree.addLeaf("link", in: root, plain, .symbolicLink("target/of/it"))
            _ = try tree.addLeaf("null", in: root, plain, .characterDevice(0x103))
            _ = try tree.addLeaf("pipe", in: root, plain, .fifo)
            _ = try tree.addLeaf("gone", in: root, plain, .characterDevice(0))
            let attributes = [
                ExtendedAttribute(name: "security.capability", value: "cap"), ExtendedAttribute(name: "trusted.secret", value: "s"),
                ExtendedAttribute(name: "user.long", value: ByteString([UInt8](repeating: 0x78, count: 5000))),
            ]
            let directory = try tree.addDirectory("dir", in: root, Metadata(permissions: 0o711, extendedAttributes: attributes))
            for number in 0..<1000 {
                _ = try tree.addLeaf(ByteString("file-\(number)"), in: directory, plain, .inline(ByteString("\(number)")))
            }
        }
    }

    private func open(_ sample: Sample, requireVerity: Bool = false, report: @escaping @Sendable (String) -> Void = { _ in }) throws
        -> Conversation
    {
        try Conversation(sample.tree, objects: sample.objects, requireVerity: requireVerity, report: report)
    }

    @Test func attributesOfAllKinds() throws {
        let conversation = try open(Sample(big))
        let expected: [(ByteString, mode: UInt32, size: UInt64, links: UInt32, device: UInt32)] = [
            ("/big", 0o100640, 300_000, 2, 0), ("/small", 0o100640, 5, 1, 0), ("/hole", 0o100640, 10_000, 1, 0),
            ("/link", 0o120640, 12, 1, 0),
            ("/null", 0o020640, 0, 1, 0x103), ("/pipe", 0o010640, 0, 1, 0), ("/gone", 0o020640, 0, 1, 0),
        ]
        for (path, mode, size, links, device) in expected {
            let node = try #require(conversation.node(path))
            let body = try #require(conversation.ask(.getAttributes, node: node, [UInt8](repeating: 0, count: 16))).body
            #expect(body.count == 16 + 88)
            #expect(body.integer(0, UInt64.self) >= 1 << 31)
            let attributes = Array(body[16...])
            #expect(attributes.integer(0, UInt64.self) == node, "\(path)")
            #expect(attributes.integer(8, UInt64.self) == size && attributes.integer(16, UInt64.self) == (size + 4095) / 4096 * 8)
            for time in 0..<3 {
                #expect(attributes.integer(24 + 8 * time, UInt64.self) == 1_700_000_000)
                #expect(attributes.integer(48 + 4 * time, UInt32.self) == 123)
            }
            #expect(attributes.integer(60, UInt32.self) == mode && attributes.integer(64, UInt32.self) == links, "\(path)")
            #expect(attributes.integer(68, UInt32.self) == 1 && attributes.integer(72, UInt32.self) == 2)
            #expect(attributes.integer(76, UInt32.self) == device && attributes.integer(80, UInt32.self) == 4096)
        }
        #expect(conversation.node("/big") == conversation.node("/again"))
        let root = try #require(conversation.ask(.getAttributes)).body
        #expect(root.integer(16, UInt64.self) == 1 && root.integer(16 + 60, UInt32.self) == 0o040755)
        #expect(
            root.integer(16 + 32, Int64.self) == -5 && root.integer(16 + 52, UInt32.self) == 7 && root.integer(16 + 68, UInt32.self) == 3)
    }

    @Test func lookups() throws {
        let conversation = try open(Sample(big))
        let absent = try #require(conversation.ask(.lookup, text("absent")))
        // Node 0, which the kernel may cache.
        #expect(absent.error == 0 && absent.body.count == 128 && absent.body.integer(0, UInt64.self) == 0)
        #expect(absent.body.integer(16, UInt64.self) >= 1 << 31)
        #expect(conversation.ask(.lookup, text("00"))?.body.integer(0, UInt64.self) == 0)
        #expect(conversation.ask(.lookup, text(ByteString([UInt8](repeating: 0x61, count: 256))))?.error == -36)
        let small = try #require(conversation.node("/small"))
        #expect(conversation.ask(.lookup, node: small, text("x"))?.error == -20)
        #expect(conversation.ask(.lookup, node: small, text("."))?.body.integer(0, UInt64.self) == small)
        let directory = try #require(conversation.node("/dir"))
        #expect(conversation.ask(.lookup, node: directory, text(".."))?.body.integer(0, UInt64.self) == 1)
        #expect(conversation.ask(.lookup, node: directory, text("."))?.body.integer(0, UInt64.self) == directory)
        // An unknown node gives an error and does not end the server.
        for node: UInt64 in [0, 2, 35, 1 << 40, .max] {
            #expect(conversation.ask(.getAttributes, node: node)?.error ?? 0 < 0, "\(node)")
        }
    }

    private func entries(_ body: [UInt8], plus: Bool) -> [(name: String, node: UInt64, number: UInt64, next: UInt64, type: UInt32)] {
        var entries: [(name: String, node: UInt64, number: UInt64, next: UInt64, type: UInt32)] = []
        var rest = body
        while rest.count >= (plus ? 152 : 24) {
            let node = plus ? rest.integer(0, UInt64.self) : 0
            if plus { rest.removeFirst(128) }
            let length = Int(rest.integer(16, UInt32.self))
            entries.append(
                (
                    String(decoding: rest[24..<(24 + length)], as: UTF8.self), node, rest.integer(0, UInt64.self),
                    rest.integer(8, UInt64.self),
                    rest.integer(20, UInt32.self)
                ))
            rest.removeFirst((24 + length + 7) & ~7)
        }
        #expect(rest.isEmpty)
        return entries
    }

    @Test(arguments: [true, false], [100, 200, 4096, 65536, 1 << 20] as [UInt32])
    func directories(plus: Bool, size: UInt32) throws {
        let conversation = try open(Sample(big))
        let directory = try #require(conversation.node("/dir"))
        var names: [String] = []
        var offset: UInt64 = 0
        while names.count < 2000 {
            let reply = try #require(
                conversation.ask(plus ? .readDirectoryPlus : .readDirectory, node: directory, readArguments(offset: offset, size: size)))
            #expect(reply.error == 0 && reply.body.count <= Int(size))
            let page = entries(reply.body, plus: plus)
            guard let last = page.last else { break }
            for entry in page where entry.name != "." && entry.name != ".." {
                #expect(entry.type == 8)
                if plus { #expect(entry.node == entry.number) }
                if names.count % 100 == 0 { #expect(conversation.node(ByteString("/dir/" + entry.name)) == entry.number) }
            }
            if plus { #expect(page.filter { $0.name.first == "." }.allSatisfy { $0.node == 0 }) }
            names += page.map(\.name)
            offset = last.next
        }
        if size < 184, plus {
            // Not even one entry fits.
            #expect(names.isEmpty)
        } else {
            #expect(names == (["." as String, ".."] + (0..<1000).map { "file-\($0)" }).sorted())
        }
        for offset: UInt64 in [1, 11, 1 << 40, .max] {
            let reply = try #require(conversation.ask(.readDirectory, node: directory, readArguments(offset: offset, size: 4096)))
            #expect(reply.error == 0 && reply.body.isEmpty)
        }
    }

    @Test func rootDirectoryHidesObjectDirectories() throws {
        let conversation = try open(Sample(big))
        let reply = try #require(conversation.ask(.readDirectory, readArguments(size: 65536)))
        let found = entries(reply.body, plus: false)
        #expect(
            found.map(\.name) == [
                ".", "..", "again", "big", "dir", "gone", "hole", "link", "missing", "null", "pipe", "short", "small", "wrong",
            ])
        let types: [String: UInt32] = ["dir": 4, "gone": 2, "link": 10, "null": 2, "pipe": 1, "small": 8]
        for (name, type) in types { #expect(found.first { $0.name == name }?.type == type, "\(name)") }
        #expect(found[0].number == 1 && found[1].number == 1)
    }

    private func read(_ conversation: Conversation, _ path: ByteString, offset: UInt64 = 0, size: UInt32 = 1 << 20) throws -> Reply {
        let node = try #require(conversation.node(path))
        let opened = try #require(conversation.ask(.open, node: node, [UInt8](repeating: 0, count: 8)))
        guard opened.error == 0 else { return opened }
        // KEEP_CACHE and NOFLUSH.
        #expect(opened.body.count == 16 && opened.body.integer(8, UInt32.self) == 0x22)
        defer { #expect(conversation.ask(.release, node: node, [UInt8](repeating: 0, count: 24))?.error == 0) }
        return try #require(conversation.ask(.read, node: node, readArguments(offset: offset, size: size)))
    }

    @Test func contents() throws {
        let conversation = try open(Sample(big))
        #expect(try read(conversation, "/big").body == big)
        #expect(try read(conversation, "/again", offset: 4096, size: 4096).body == Array(big[4096..<8192]))
        #expect(try read(conversation, "/big", offset: 299_999).body == [big[299_999]])
        for offset: UInt64 in [300_000, 1 << 40, .max] { #expect(try read(conversation, "/big", offset: offset).body == []) }
        #expect(try read(conversation, "/small").body == [UInt8]("hello".utf8))
        #expect(try read(conversation, "/small", offset: 3).body == [UInt8]("lo".utf8))
        #expect(try read(conversation, "/hole").body == [UInt8](repeating: 0, count: 10_000))
        #expect(try read(conversation, "/hole", offset: 9_999).body == [0])
        #expect(try read(conversation, "/hole", offset: 10_000).body == [])
        let link = try #require(conversation.node("/link"))
        #expect(conversation.ask(.readLink, node: link)?.body == [UInt8]("target/of/it".utf8))
        #expect(conversation.ask(.readLink, node: 1)?.error == -22)
        #expect(conversation.ask(.open, node: 1, [UInt8](repeating: 0, count: 8))?.error == -21)
        #expect(conversation.ask(.openDirectory, node: 1, [UInt8](repeating: 0, count: 8))?.error == -38)
    }

    @Test func damagedObjects() throws {
        let lines = Mutex<[String]>([])
        let sample = try Sample(big)
        let conversation = try open(sample) { line in lines.withLock { $0.append(line) } }
        for _ in 0..<3 {
            #expect(try read(conversation, "/missing").error == -2)
            #expect(try read(conversation, "/wrong").error == -5)
            #expect(try read(conversation, "/short").error == -5)
        }
        // One line per object, however often it is opened.
        let said = lines.withLock { $0 }
        #expect(said.count == 3)
        #expect(said.contains { $0.contains("\(sample.missing) is missing") })
        #expect(said.contains { $0.contains("\(sample.wrong) is damaged: its content has the digest") })
        #expect(said.contains { $0.contains("it has 300000 bytes, but the image says 5") })
        #expect(try read(conversation, "/big").body == big)
    }

    /// An object that is changed or truncated while it is open is not served.
    @Test(arguments: [false, true], [false, true]) func changesWhileOpen(opensLazily: Bool, isCut: Bool) throws {
        let lines = Mutex<[String]>([])
        let sample = try Sample(big)
        let conversation = try Conversation(sample.tree, objects: sample.objects, opensLazily: opensLazily) { line in
            lines.withLock { $0.append(line) }
        }
        let node = try #require(conversation.node("/big"))
        func open() throws -> Int32 { try #require(conversation.ask(.open, node: node, [UInt8](repeating: 0, count: 8))).error }
        func read(_ offset: UInt64) throws -> Reply {
            try #require(conversation.ask(.read, node: node, readArguments(offset: offset, size: 4096)))
        }
        #expect(try open() == (opensLazily ? -38 : 0))
        #expect(try read(0).body == Array(big[..<4096]))
        Host.sleep(milliseconds: 50)
        let file = sample.objects.file(of: sample.big)
        if isCut { #expect(ftruncate(file, 100_000) == 0) } else { #expect(pwrite(file, "x", 1, 200_000) == 1) }
        if !opensLazily {
            for offset: UInt64 in [0, 200_000, 90_000] { #expect(try read(offset).error == -5) }
            let said = lines.withLock { $0 }
            #expect(said.count == 1 && said.first?.hasPrefix("object \(sample.big) is damaged: ") == true, "\(said)")
            // Another open would share the file with those that have it open.
            #expect(try open() == -5)
            #expect(conversation.ask(.release, node: node, [UInt8](repeating: 0, count: 24))?.error == 0)
            #expect(try open() == 0)
        }
        // An intact copy has replaced it.
        #expect(try read(200_000).body == Array(big[200_000..<204_096]))
    }

    /// Another link to an object, or another owner, does not change its content.
    @Test(arguments: [false, true]) func touchedWhileOpen(opensLazily: Bool) throws {
        let sample = try Sample(big)
        sample.objects.keepsFiles.store(true, ordering: .relaxed)
        let conversation = try Conversation(sample.tree, objects: sample.objects, opensLazily: opensLazily)
        let node = try #require(conversation.node("/big"))
        for mode in [0o600, 0o640, 0o644] as [mode_t] {
            let opened = try #require(conversation.ask(.open, node: node, [UInt8](repeating: 0, count: 8)))
            #expect(opened.error == (opensLazily ? -38 : 0))
            let reply = try #require(conversation.ask(.read, node: node, readArguments(offset: 1, size: 1 << 20)))
            #expect(reply.error == 0 && reply.body == Array(big[1...]))
            Host.sleep(milliseconds: 20)
            #expect(fchmod(sample.objects.file(of: sample.big), mode) == 0)
        }
    }

    /// A file handle of an exported mount may name any inode, even one that is forged in a file's content.
    @Test func forgedNodes() throws {
        let directory = fields {
            // A compact inode: layout inline, mode, links, size, and in its tail one entry without a name.
            $0.u16(4)
            $0.u16(0)
            $0.u16(0o40755)
            $0.u16(1)
            $0.u32(13)
            $0.zeros(20)
            $0.u64(36)
            $0.u16(12)
            $0.u8(2)
            $0.u8(0)
            $0.u8(0)
        }
        var sample = try Sample(big)
        _ = try sample.tree.addLeaf("forged", in: FileTree.root, Metadata(permissions: 0o644), .inline(ByteString(directory)))
        let conversation = try open(sample)
        let node = try #require(conversation.node("/forged"))
        var answered = 0
        for forged in node..<(node + 4) {
            for operation: FuseOperation in [.readDirectory, .readDirectoryPlus, .lookup, .getAttributes] {
                let arguments = operation == .lookup ? text("a") : readArguments(size: 4096)
                let reply = try #require(conversation.ask(operation, node: forged, arguments))
                if operation == .getAttributes, reply.error == 0, reply.body.integer(16 + 60, UInt32.self) == 0o40755 { answered += 1 }
                if operation == .readDirectoryPlus { #expect(reply.error < 0 || reply.body.isEmpty) }
            }
        }
        // The forged inode was reached.
        #expect(answered == 1)
    }

    /// On a file system that stores only even seconds, a second change within two seconds is invisible.
    @Test func slowClocks() throws {
        var identity = FileIdentity(try FileDescriptor.open("/", .pathOnly).status())
        identity.changedSeconds = 1000
        identity.changedNanoseconds = 5
        #expect(!identity.isSettled(at: (1000, 100_000_005)))
        #expect(identity.isSettled(at: (1000, 100_000_006)))
        #expect(!identity.isSettled(at: (999, 0)))
        identity.changedNanoseconds = 0
        for now: (Int64, UInt32) in [(1000, 999_999_999), (1001, 500_000_000), (1002, 100_000_000)] {
            #expect(!identity.isSettled(at: now))
        }
        #expect(identity.isSettled(at: (1002, 100_000_001)))
        #expect(identity.isSettled(at: (1003, 0)))
    }

    /// The store's reason for not opening an object is reported verbatim.
    @Test func refusedObjects() throws {
        let lines = Mutex<[String]>([])
        let sample = try Sample(big)
        sample.objects.refusal.withLock { $0 = "it has no fs-verity signature" }
        let conversation = try open(sample) { line in lines.withLock { $0.append(line) } }
        #expect(try read(conversation, "/big").error == -5)
        #expect(lines.withLock { $0 } == ["object \(sample.big) cannot be opened: it has no fs-verity signature"])
    }

    /// The kernel opens files without asking; the first read verifies, and if that fails, every read fails.
    @Test func lazyOpens() throws {
        let sample = try Sample(big)
        let conversation = try Conversation(sample.tree, objects: sample.objects, opensLazily: true)
        #expect((conversation.agreed?.body.integer(12, UInt32.self) ?? 0) & (1 << 17) != 0)
        // No FUSE_PASSTHROUGH.
        #expect(conversation.agreed?.body.integer(32, UInt32.self) == 0)
        func read(_ path: ByteString, _ offset: UInt64 = 0) throws -> Reply {
            let node = try #require(conversation.node(path))
            #expect(conversation.ask(.open, node: node, [UInt8](repeating: 0, count: 8))?.error == -38)
            return try #require(conversation.ask(.read, node: node, readArguments(offset: offset, size: 1 << 20)))
        }
        for _ in 0..<2 {
            #expect(try read("/big").body == big)
            #expect(try read("/again", 299_990).body == Array(big[299_990...]))
            #expect(try read("/small").body == [UInt8]("hello".utf8))
            #expect(try read("/hole", 9_000).body == [UInt8](repeating: 0, count: 1000))
            for path: ByteString in ["/missing", "/wrong", "/short"] { #expect(try read(path).error == -5, "\(path)") }
        }
    }

    /// A secure repository's objects must have fs-verity, whatever their content.
    @Test func verityIsRequired() throws {
        let conversation = try Conversation(try Sample(big).tree, objects: try Sample(big).objects, requireVerity: true)
        #expect(try read(conversation, "/big").error == -5)
        #expect(try read(conversation, "/small").body == [UInt8]("hello".utf8))
    }

    /// Closed files are kept open, so reading them again does not open them again.
    @Test func objectsAreKept() throws {
        let sample = try Sample(big)
        let conversation = try open(sample)
        #expect(try read(conversation, "/big").body == big)
        // A file that was just written is hashed until its change time is old enough to show the next change.
        Host.sleep(milliseconds: 150)
        #expect(try read(conversation, "/big").body == big)
        let before = sample.objects.opens.load(ordering: .relaxed)
        for _ in 0..<5 { #expect(try read(conversation, "/big", size: 10).body == Array(big[..<10])) }
        #expect(sample.objects.opens.load(ordering: .relaxed) <= before + 5)
    }

    @Test func extendedAttributes() throws {
        let conversation = try open(Sample(big))
        let directory = try #require(conversation.node("/dir"))
        func get(_ name: ByteString, size: UInt32, node: UInt64) -> Reply? {
            conversation.ask(
                .getExtendedAttribute, node: node,
                fields {
                    $0.u32(size)
                    $0.u32(0)
                    $0.append(text(name))
                })
        }
        #expect(get("security.capability", size: 0, node: directory)?.body == [3, 0, 0, 0, 0, 0, 0, 0])
        #expect(get("security.capability", size: 3, node: directory)?.body == [UInt8]("cap".utf8))
        #expect(get("security.capability", size: 2, node: directory)?.error == -34)
        #expect(get("user.long", size: 65536, node: directory)?.body == [UInt8](repeating: 0x78, count: 5000))
        #expect(get("user.other", size: 10, node: directory)?.error == -61)
        #expect(get("user.long", size: 10, node: 1)?.error == -61)
        #expect(get("trusted.overlay.opaque", size: 10, node: 1)?.error == -61)
        func list(_ size: UInt32, uid: UInt32, node: UInt64) -> Reply? {
            conversation.ask(.listExtendedAttributes, node: node, uid: uid, fields { $0.u64(UInt64(size)) })
        }
        let names = "security.capability\0user.long\0"
        #expect(list(1000, uid: 1000, node: directory)?.body == [UInt8](names.utf8))
        #expect(list(0, uid: 1000, node: directory)?.body.integer(0, UInt32.self) == UInt32(names.utf8.count))
        #expect(list(5, uid: 1000, node: directory)?.error == -34)
        #expect(list(1000, uid: 1000, node: 1)?.body == [])
        if Host.hasCapability(.systemAdmin), Host.isInFirstUserNamespace {
            let all = String(decoding: list(1000, uid: 0, node: directory)?.body ?? [], as: UTF8.self).split(separator: "\0").sorted()
            #expect(all == ["security.capability", "trusted.secret", "user.long"])
        }
    }

    @Test func fileSystemStatus() throws {
        let conversation = try open(Sample(big))
        let body = try #require(conversation.ask(.statFileSystem)).body
        #expect(body.count == 80 && body.integer(0, UInt64.self) > 0)
        #expect(body.integer(8, UInt64.self) == 0 && body.integer(16, UInt64.self) == 0)
        #expect(body.integer(40, UInt32.self) == 4096 && body.integer(44, UInt32.self) == 255)
    }

    /// Every operation that would change something gives EROFS (30), before anything else is checked.
    @Test func changes() throws {
        let conversation = try open(Sample(big))
        let changing: [FuseOperation] = [
            .setAttributes, .symlink, .makeNode, .makeDirectory, .unlink, .removeDirectory, .rename, .link, .write, .setExtendedAttribute,
            .removeExtendedAttribute, .create, .allocate, .renameWithFlags, .copyRange, .createTemporary, .copyLongRange,
        ]
        for operation in changing {
            #expect(operation.isChange)
            for length in [0, 1, 8, 200] {
                #expect(conversation.ask(operation, [UInt8](repeating: 0x61, count: length))?.error == -30, "\(operation)")
            }
        }
        let small = try #require(conversation.node("/small"))
        for flags: UInt32 in [1, 2, 0o1000, 0o1001] {
            #expect(conversation.ask(.open, node: small, fields { $0.u64(UInt64(flags)) })?.error == -30)
        }
    }

    /// Operations that the kernel handles itself once the server says that it does not implement them.
    @Test func leftToTheKernel() throws {
        let conversation = try open(Sample(big))
        for operation: FuseOperation in [
            .flush, .sync, .syncDirectory, .access, .seek, .poll, .mapBlock, .extendedStatus, .getLock, .setLock,
        ] {
            #expect(conversation.ask(operation, [UInt8](repeating: 0, count: 48))?.error == -38, "\(operation)")
        }
        #expect(conversation.ask(.ioctl, [UInt8](repeating: 0, count: 32))?.error == -25)
        for unknown: UInt32 in [0, 7, 19, 54, 4096, .max] {
            #expect(conversation.ask(request(unknown, 8))?.error == -38, "\(unknown)")
        }
    }

    /// Forget and interrupt requests have no answer; after thousands of them the next request is answered as before.
    @Test func forgetStorm() throws {
        let conversation = try open(Sample(big))
        for number in 0..<5000 as Range<UInt64> {
            conversation.send(request(.forget, number, node: number &* 77, [UInt8](repeating: 0xff, count: number % 3 == 0 ? 0 : 8)))
            conversation.send(request(.interrupt, number, node: 0, number % 2 == 0 ? [] : fields { $0.u64(number) }))
        }
        conversation.send(request(.forgetMany, 1, fields { $0.u64(.max) }))
        #expect(conversation.ask(.getAttributes)?.error == 0)
        #expect(conversation.finish())
    }

    /// Truncated requests and random bytes: the server answers or ignores them, and continues.
    @Test func hostileRequests() throws {
        let conversation = try open(Sample(big))
        var random = SystemRandomNumberGenerator()
        var whole: [[UInt8]] = []
        for operation in FuseOperation.allCases where ![.initialize, .destroy].contains(operation) {
            whole.append(request(operation, 4, fields { for _ in 0..<8 { $0.u64(.max) } }))
            whole.append(request(operation, 4, readArguments(offset: 0, size: .max)))
        }
        for bytes in whole {
            for count in stride(from: 40, to: bytes.count, by: 3) {
                var cut = Array(bytes[..<count])
                withUnsafeBytes(of: UInt32(count)) { cut.replaceSubrange(0..<4, with: $0) }
                for index in 0..<4 where index > 0 {
                    let offset = Int.random(in: 8..<count, using: &random)
                    cut[offset] = UInt8.random(in: .min ... .max, using: &random)
                }
                conversation.send(cut)
            }
        }
        for length in [1, 16, 39, 40, 41, 500] {
            conversation.send((0..<length).map { _ in UInt8.random(in: .min ... .max, using: &random) })
        }
        // Discard the answers to earlier requests.
        conversation.send(request(.getAttributes, 0xdead_beef))
        var isAlive = false
        var count = 0
        while !isAlive, count < 100_000, let reply = conversation.receive() {
            isAlive = reply.unique == 0xdead_beef && reply.error == 0
            count += 1
        }
        #expect(isAlive)
    }

    @Test func endsWithTheConnection() throws {
        let conversation = try open(Sample(big))
        #expect(try read(conversation, "/small").error == 0)
        #expect(conversation.finish())
    }
}
