import ComposefsBootFormats
import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsBoot

/// Deployments after they were prepared: /etc and /var, status, rollback, removal.
@Suite struct DeploymentTests {
    private func state(_ id: ObjectID, _ path: ByteString = "") -> ByteString { "sysroot/state/deploy/" + ByteString(id.hex) + path }

    /// What the kernel leaves when it has mounted the overlay.
    private func boot(_ fixture: BootFixture, _ id: ObjectID) throws {
        try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: fixture.path + "/" + state(id, "/etc/work/work"), mode: 0)
    }

    private func expectError(_ part: String, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void) {
        do {
            try body()
            Issue.record("no error", sourceLocation: sourceLocation)
        } catch {
            #expect("\(error)".contains(part), sourceLocation: sourceLocation)
        }
    }

    @Test func localChangesAreCarriedOver() throws {
        let fixture = try BootFixture()
        let (big, bigger) = (String(repeating: "a", count: 200), String(repeating: "b", count: 300))
        let first = try fixture.bootable("1", kernel: "k", disk: "1", [("etc/a", [1]), ("etc/b", [1]), ("etc/d/c", [1])])
        let second = try fixture.bootable("2", kernel: "k", disk: "2", [("etc/a", [2]), ("etc/b", [2]), ("etc/d/c", [2])])
        let third = try fixture.bootable("3", kernel: "k", disk: "3", [("etc/a", [3]), ("etc/b", [3]), ("etc/d/c", [3])])
        try fixture.prepare("1")
        try boot(fixture, first)
        try fixture.write(state(first, "/etc/upper/a"), big, mode: 0o640)
        try fixture.write(state(first, "/etc/upper/new/mine"), bigger)
        let prepared = try fixture.prepare("2", running: first)
        #expect(prepared.etc == .merged(from: first, kept: ["/a", "/new/mine", "/new"], removed: [], conflicts: ["/a"]))
        #expect(try fixture.listing(state(second, "/etc/upper")) == ["a": big, "new": "/", "new/mine": bigger])
        let status = try FileDescriptor.currentDirectory.status(at: fixture.path + "/" + state(second, "/etc/upper/a"))
        #expect(status.permissions == 0o640)

        // Not booted yet: changes that were made meanwhile are carried over when it is prepared again.
        try fixture.write(state(first, "/etc/upper/later"), "later")
        try fixture.prepare("2", running: first)
        #expect(try fixture.read(state(second, "/etc/upper/later")) == "later")

        // The one that runs counts, not the next one.
        try fixture.write(state(second, "/etc/upper/wrong"), "wrong")
        try fixture.prepare("3", running: first)
        #expect(try fixture.listing(state(third, "/etc/upper")).keys.sorted() == ["a", "later", "new", "new/mine"])

        // Booted: it keeps its own, for a rollback as for a later preparation.
        try boot(fixture, second)
        #expect(try fixture.prepare("2", running: first).etc == .unchanged)
        #expect(try fixture.read(state(second, "/etc/upper/wrong")) == "wrong")
        try fixture.write(state(second, "/etc/upper/own"), "own")
        #expect(try fixture.prepare("1", running: second).etc == .unchanged)
        #expect(try fixture.read(state(first, "/etc/upper/a")) == big)

        // Nothing carried over.
        #expect(try fixture.prepare("3", running: second) { $0.mergesEtc = false }.etc == .new)
        #expect(try fixture.listing(state(third, "/etc/upper")) == [:])
    }

    @Test(.enabled(if: Host.effectiveUserID == 0, "needs root")) func ownersAttributesAndWhiteouts() throws {
        let fixture = try BootFixture()
        let first = try fixture.bootable(
            "1", kernel: "k", disk: "1", [("etc/a", [1]), ("etc/gone", [1]), ("etc/d/x", [1]), ("etc/d/y", [1])])
        let second = try fixture.bootable(
            "2", kernel: "k", disk: "2", [("etc/a", [1]), ("etc/gone", [2]), ("etc/d/x", [1]), ("etc/d/y", [1])])
        try fixture.prepare("1")
        try fixture.write(state(first, "/etc/upper/a"), "mine", mode: 0o4750)
        let upper = try FileDescriptor.open(fixture.path + "/" + state(first, "/etc/upper"), [.readOnly, .directory])
        try upper.changeOwner(at: "a", uid: 12, gid: 34)
        try upper.changeMode(at: "a", 0o4750)
        try upper.setExtendedAttribute("user.note", "text", at: "a")
        try upper.setTime(at: "a", seconds: 1_000_000_000, nanoseconds: 5)
        try upper.makeNode(at: "gone", mode: 0o20000)
        try upper.symlink(target: "a", at: "link")
        try upper.makeNode(at: "pipe", mode: 0o10600)
        try upper.makeDirectory(at: "d", mode: 0o755)
        try upper.setExtendedAttribute("trusted.overlay.opaque", "y", at: "d")
        let prepared = try fixture.prepare("2")
        #expect(
            prepared.etc
                == .merged(
                    from: first, kept: ["/a", "/link", "/pipe"], removed: ["/d/x", "/d/y", "/gone"], conflicts: ["/gone"]))
        let merged = try FileDescriptor.open(fixture.path + "/" + state(second, "/etc/upper"), [.readOnly, .directory])
        let file = try merged.status(at: "a")
        #expect(
            file.uid == 12 && file.gid == 34 && file.permissions == 0o4750 && file.mtimeSeconds == 1_000_000_000
                && file.mtimeNanoseconds == 5)
        #expect(try merged.extendedAttribute("user.note", at: "a") == "text")
        let whiteout = try merged.status(at: "gone")
        #expect(whiteout.kind == .characterDevice && whiteout.deviceMajor == 0 && whiteout.deviceMinor == 0)
        #expect(try merged.readLink(at: "link") == "a" && merged.status(at: "pipe").kind == .fifo)
        #expect(try merged.extendedAttribute("trusted.overlay.opaque", at: "d") == nil)
        #expect(try merged.status(at: "d/x").kind == .characterDevice && merged.status(at: "d/y").kind == .characterDevice)
    }

    /// A deployment of bootc: all of /etc, without an overlay.
    @Test func stateOfOtherPrograms() throws {
        let fixture = try BootFixture()
        let first = try fixture.bootable("1", kernel: "k", disk: "1", [("etc/a", [0x31]), ("etc/b", [0x31])])
        let second = try fixture.bootable("2", kernel: "k", disk: "2", [("etc/a", [0x32]), ("etc/b", [0x32])])
        try fixture.write(state(first, "/etc/a"), "1")
        try fixture.write(state(first, "/etc/b"), "mine")
        try fixture.write(state(first, "/" + ByteString(first.hex) + ".origin"), "[origin]\n")
        let found = try #require(try fixture.deployments(running: first).booted())
        #expect(found.id == first && found.record == nil && !found.isPinned)
        #expect(try fixture.prepare("2", running: first).etc == .merged(from: first, kept: ["/b"], removed: [], conflicts: ["/b"]))
        #expect(try fixture.listing(state(second, "/etc/upper")) == ["b": "mine"])
    }

    /// The reference implementation gives each deployment a /var of its own. An update must not hide what is in it.
    @Test func varOfAnotherProgramIsAdopted() throws {
        let fixture = try BootFixture()
        let first = try fixture.bootable("1", kernel: "k", disk: "1", [("var/lib/x", [0x31])])
        let second = try fixture.bootable("2", kernel: "k", disk: "2", [("var/lib/x", [0x32])])
        let third = try fixture.bootable("3", kernel: "k", disk: "3")
        for path in ["/etc/upper/e", "/etc/work/work/w", "/var/lib/mine"] as [ByteString] { try fixture.write(state(first, path), "data") }
        let prepared = try fixture.prepare("2", running: first)
        #expect(prepared.var == .adopted(from: first))
        for id in [first, second] {
            let names = try fixture.listing(state(id))
            #expect(names["var"] == "-> ../../os/default/var")
            #expect(try fixture.read(state(id, "/var/lib/mine")) == "data" && fixture.read(state(id, "/etc/upper/e")) == "data")
        }
        #expect(try fixture.listing("sysroot/state/os/default/var") == ["lib": "/", "lib/mine": "data"])
        #expect(try fixture.prepare("3", running: second).var == .shared)
        // There is one now: another deployment's own stays where it is.
        try FileDescriptor.currentDirectory.unlink(at: fixture.path + "/" + state(third, "/var"))
        try fixture.write(state(third, "/var/own"), "own")
        #expect(try fixture.prepare("2", running: third).var == .sharedBesideOwn(of: third))
        #expect(try fixture.read(state(third, "/var/own")) == "own" && fixture.read(state(second, "/var/lib/mine")) == "data")
    }

    /// At every point, the old deployment has its data.
    @Test func varIsAdoptedAtOnce() throws {
        for cut in stride(from: 0, to: 40, by: 2) {
            let fixture = try BootFixture()
            let first = try fixture.bootable("1", kernel: "k", disk: "1")
            try fixture.bootable("2", kernel: "k", disk: "2")
            for path in ["/etc/upper/e", "/etc/work/work/w", "/var/mine"] as [ByteString] { try fixture.write(state(first, path), "data") }
            let observer = Cut(after: cut)
            try? observer.observe { try fixture.prepare("2", running: first) }
            #expect(try fixture.read(state(first, "/var/mine")) == "data", "\(cut)")
            guard cut.isMultiple(of: 8) else { continue }
            let prepared = try fixture.prepare("2", running: first)
            #expect(try fixture.read(state(prepared.id, "/var/mine")) == "data", "\(cut)")
        }
    }

    @Test func varIsSharedOrOwn() throws {
        let fixture = try BootFixture()
        let first = try fixture.bootable("1", kernel: "k", disk: "1", [("var/lib/x", [0x31])])
        let second = try fixture.bootable("2", kernel: "k", disk: "2", [("var/lib/x", [0x32])])
        try fixture.prepare("1")
        try fixture.write("sysroot/state/os/default/var/lib/x", "data of the user")
        let prepared = try fixture.prepare("2") { $0.hasOwnVar = true }
        #expect(try fixture.read(state(second, "/var/lib/x")) == "2" && fixture.deployments().deployment(second)?.hasOwnVar == true)
        #expect(try fixture.read(state(first, "/var/lib/x")) == "data of the user")
        // Its data do not disappear without being asked for.
        expectError("has data in its own /var") { _ = try fixture.deployments().remove(prepared.entry.id, try fixture.partition()) }
        #expect(try fixture.read(state(second, "/var/lib/x")) == "2")
        _ = try fixture.deployments().remove(prepared.entry.id, try fixture.partition(), force: true)
        #expect(try fixture.deployments().all().map(\.id) == [first])
        #expect(try fixture.read("sysroot/state/os/default/var/lib/x") == "data of the user")
    }

    @Test func rollback() throws {
        let fixture = try BootFixture()
        let ids = try ["1", "2", "3"].map { try fixture.bootable(ByteString($0), kernel: "k" + $0, disk: $0) }
        try fixture.write("boot/loader/loader.conf", "timeout 3\n#default x\n")
        for name in ["1", "2", "3"] as [ByteString] { try fixture.prepare(name) }
        func status(_ running: ObjectID?) throws -> [ObjectID?] {
            let status = try fixture.deployments(running: running).status(try fixture.partition())
            return [status.booted, status.next?.images.first, status.previous?.images.first]
        }
        // Prepared, but the second still runs: back to it.
        #expect(try status(ids[1]) == [ids[1], ids[2], ids[1]])
        #expect(try fixture.deployments(running: ids[1]).rollBack(try fixture.partition()).images == [ids[1]])
        #expect(try status(ids[1]) == [ids[1], ids[1], ids[0]])
        let line = "default composefs-\(try fixture.read("sysroot/state/cfsoci-system").dropLast())-2.conf"
        #expect(try fixture.read("boot/loader/loader.conf") == "timeout 3\n#default x\n\(line)\n")
        // To a named one, and to the newest: then there is no line.
        #expect(try fixture.deployments().rollBack(try fixture.partition(), to: "1").images == [ids[0]])
        #expect(try status(ids[0]) == [ids[0], ids[0], ids[2]])
        #expect(
            try fixture.deployments().rollBack(try fixture.partition(), to: ByteString(ids[2].hex.prefix(8).description)).images == [ids[2]]
        )
        #expect(try fixture.read("boot/loader/loader.conf") == "timeout 3\n#default x\n")
        // What is prepared after a rollback is booted next.
        _ = try fixture.deployments().rollBack(try fixture.partition(), to: "1")
        let prepared = try fixture.prepare("2", running: ids[0])
        #expect(prepared.isNext && prepared.replaced.count == 1)
        #expect(try status(ids[0]) == [ids[0], ids[1], ids[0]])
        // The entry of another system stays the default.
        try fixture.write("boot/loader/entries/other.conf", "title Other\nlinux /x\n")
        try fixture.write("boot/loader/loader.conf", "default oth*\n")
        #expect(try !fixture.prepare("3").isNext)
        #expect(try fixture.read("boot/loader/loader.conf") == "default oth*\n")
        expectError("no deployment") { _ = try fixture.deployments().rollBack(try fixture.partition(), to: "missing") }
    }

    @Test func nothingToRollBackTo() throws {
        let fixture = try BootFixture()
        expectError("no other deployment") { _ = try fixture.deployments().rollBack(try fixture.partition()) }
        try fixture.bootable("1", kernel: "k", disk: "d")
        try fixture.prepare("1")
        try fixture.write("boot/loader/entries/other.conf", "title Other\nlinux /x\n")
        expectError("no other deployment") { _ = try fixture.deployments().rollBack(try fixture.partition()) }
        #expect(try fixture.listing("boot").keys.contains("loader/loader.conf") == false)
    }

    /// The loader renames the entry at each attempt; systemd-bless-boot removes the counters.
    @Test func attempts() throws {
        let fixture = try BootFixture()
        let ids = try ["1", "2"].map { try fixture.bootable(ByteString($0), kernel: "k" + $0, disk: $0) }
        try fixture.prepare("1")
        let prepared = try fixture.prepare("2") { $0.attempts = 2 }
        #expect(prepared.isNext && prepared.entry.path.hasSuffix("-2+2.conf") && prepared.entry.id.hasSuffix("-2.conf"))
        func next() throws -> ObjectID? { try fixture.deployments().status(try fixture.partition()).next?.images.first }
        func renamed(_ old: ByteString, _ new: ByteString) throws {
            let path = fixture.boot + "/loader/entries/" + ByteString(prepared.entry.name.name.bytes)
            try FileDescriptor.currentDirectory.rename(at: path + old + ".conf", to: path + new + ".conf")
        }
        try renamed("+2", "+1-1")
        #expect(try next() == ids[1])
        try renamed("+1-1", "+0-2")
        #expect(try next() == ids[0])
        // Prepared again, it is tried again, and the spent entry is gone.
        #expect(try fixture.prepare("2") { $0.attempts = 3 }.isNext)
        #expect(try fixture.partition().entries().map(\.name.attemptsLeft) == [3, nil])
    }

    @Test func removalAndGarbage() throws {
        let fixture = try BootFixture()
        let ids = try ["1", "2"].map { try fixture.bootable(ByteString($0), kernel: "shared", disk: $0) }
        try fixture.prepare("1")
        expectError("is the last one") { _ = try fixture.deployments().remove("1", try fixture.partition()) }
        try fixture.prepare("2")
        let before = try fixture.listing("boot")
        expectError("is running") { _ = try fixture.deployments(running: ids[0]).remove("1", try fixture.partition(), force: true) }
        #expect(try fixture.deployments().setPinned(true, ids[0]) && !fixture.deployments().setPinned(true, ids[0]))
        expectError("is pinned") { _ = try fixture.deployments().remove("1", try fixture.partition()) }
        #expect(try fixture.deployments().setPinned(false, ids[0]))
        #expect(try fixture.listing("boot") == before)
        // Of another system, of another program, and with a file of ours.
        let shared = "composefs/\(BootFixture.digest("shared")).linux"
        try fixture.write(
            "boot/loader/entries/other.conf",
            "# Written by cfsoci for the system 00000000\nlinux /\(shared)\noptions composefs=\(ids[0].hex)\n")
        try fixture.write("boot/loader/entries.srel", "type1\n")
        let removal = try fixture.deployments().remove("1", try fixture.partition())
        #expect(
            removal.deployments == [ids[0]] && removal.entries.count == 1
                && removal.files == ["composefs/\(ByteString(BootFixture.digest("1"))).initrd".path])
        #expect(try fixture.deployments().all().map(\.id) == [ids[1]])
        #expect(
            try fixture.listing("boot").keys.filter { $0.hasPrefix("composefs/") }.sorted()
                == [shared, "composefs/\(BootFixture.digest("2")).initrd"].sorted())

        // A deployment that another program removed, and what a power cut left.
        try removeTree(fixture.path + "/" + state(ids[1]))
        try fixture.write("boot/loader/entries/.cfsoci-abc", "half")
        try fixture.write("boot/composefs/notes.txt", "of the user")
        try fixture.write("sysroot/state/deploy/.tmp-abc/etc/upper/x", "half")
        let plan = try fixture.deployments().collectGarbage(try fixture.partition(), dryRun: true)
        let done = try fixture.deployments().collectGarbage(try fixture.partition())
        #expect(
            plan.entries == done.entries && plan.files.sorted() == done.files.sorted() && done.temporaries == 1 && done.deployments == [])
        #expect(done.entries.count == 1 && done.files.count == 2)
        #expect(
            try fixture.listing("boot").filter { $0.value != "/" }.keys.sorted()
                == [shared, "composefs/notes.txt", "loader/entries.srel", "loader/entries/other.conf"].sorted())
        #expect(try fixture.listing("sysroot/state/deploy") == [:])
    }

    /// A volume that is mounted below the deployment's directory is not the deployment's.
    @Test(.enabled(if: Host.effectiveUserID == 0, "needs root")) func mountedVolumesStay() throws {
        let fixture = try BootFixture()
        let ids = try ["1", "2"].map { try fixture.bootable(ByteString($0), kernel: "shared", disk: $0) }
        for name in ["1", "2"] as [ByteString] { try fixture.prepare(name) }
        let before = try fixture.listing("boot")
        let place = fixture.path + "/" + state(ids[0], "/etc/upper/volume")
        try fixture.write("volume/data", "of the user")
        try FileDescriptor.makeDirectory(place, mode: 0o755)
        // MS_BIND
        try #require(mount("\(fixture.path)/volume", "\(place)", nil, 4096, nil) == 0)
        expectError("a file system is mounted on \(fixture.sysroot)/state/deploy/\(ids[0].hex)/etc/upper/volume") {
            _ = try fixture.deployments().remove("1", try fixture.partition(), force: true)
        }
        #expect(try fixture.listing("boot") == before && fixture.read("volume/data") == "of the user")
        #expect(try fixture.deployments().all().count == 2)
        try #require(umount2("\(place)", 0) == 0)
        #expect(try fixture.deployments().remove("1", try fixture.partition()).deployments == [ids[0]])
        #expect(try fixture.read("volume/data") == "of the user")
    }

    @Test func anEntryThatCannotBeReadKeepsEverything() throws {
        let fixture = try BootFixture()
        try fixture.bootable("1", kernel: "k", disk: "1")
        try fixture.prepare("1")
        let file = try FileDescriptor.open(fixture.boot + "/loader/entries/huge.conf", [.writeOnly, .create])
        try file.truncate(to: 1 << 21)
        let before = try fixture.listing("boot").keys.sorted()
        expectError("huge.conf: more than") { _ = try fixture.deployments().collectGarbage(try fixture.partition()) }
        #expect(try fixture.listing("boot").keys.sorted() == before)
    }

    /// On FAT, names may have been made in upper case; and names that differ in case only are the same.
    @Test func upperCase() throws {
        let fixture = try BootFixture()
        let id = try fixture.bootable("1", kernel: "k", disk: "1")
        try fixture.prepare("1") { $0.entry = "first" }
        let files = try fixture.listing("boot").keys.filter { $0.hasPrefix("composefs/") }.sorted()
        let line = try fixture.read("boot/loader/entries/first.conf").uppercased().replacing("LINUX ", with: "linux ").replacing(
            "INITRD ", with: "initrd ")
        try FileDescriptor.currentDirectory.unlink(at: fixture.boot + "/loader/entries/first.conf")
        try fixture.write("boot/LOADER/ENTRIES/OTHER.CONF", line)
        try fixture.write(
            "boot/loader/entries/SECOND.CONF", "title x\nlinux /x\noptions composefs=zz composefs.digest=?v1-sha256-12:\(id.hex)\n")
        #expect(try fixture.partition().entries().map { [$0.id, $0.path] } == [["SECOND.conf", "loader/entries/SECOND.CONF"]])
        #expect(try fixture.partition().entries().map(\.images) == [[id]])
        #expect(try fixture.deployments().collectGarbage(try fixture.partition(), subdirectory: "/composefs/").files == [])
        #expect(try fixture.listing("boot").keys.filter { $0.hasPrefix("composefs/") }.sorted() == files)
        expectError("SECOND.CONF exists") { try fixture.prepare("1") { $0.entry = "second" } }
    }

    @Test func theRepositorysDirectory() throws {
        let fixture = try BootFixture()
        #expect(try Deployments(beside: fixture.repository, sysroot: fixture.sysroot).sysroot.hasSuffix("/sysroot"))
        expectError("is not the directory that holds the repository") {
            _ = try Deployments(beside: fixture.repository, sysroot: fixture.boot)
        }
    }

    @Test func namesOfDeployments() throws {
        let fixture = try BootFixture()
        let id = try fixture.bootable("one", kernel: "k", disk: "1")
        let entry = try fixture.prepare("one").entry
        let deployments = try fixture.deployments()
        for name in [ByteString(id.hex), ByteString(id.hex.prefix(6).description), entry.id, entry.name.name, "one"] {
            #expect(try deployments.find(name, [entry]).id == id)
        }
        for name in ["", "x", ByteString(id.hex.prefix(5).description), "../x"] as [ByteString] {
            expectError("no deployment") { _ = try deployments.find(name, [entry]) }
        }
    }
}

extension String {
    fileprivate var path: ByteString { ByteString(self) }
}
