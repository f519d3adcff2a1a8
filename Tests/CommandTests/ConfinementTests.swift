import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Synchronization
import Testing

@testable import ComposefsCommandSupport
@testable import ComposefsCommands
@testable import ComposefsConfinement
@testable import ComposefsLowLevelCommands

/// What a parser that was taken over can still do, with the binary's debug hook (`Misbehaviour`), and what the user is told.
///
/// Capabilities, no_new_privs and the seccomp filter are asserted on every kernel. What Landlock denies is asserted if the kernel has it;
/// tools/verity-tests runs these tests on one that does.
@Suite(.serialized) struct ConfinementTests {
    /// What the hook found.
    private struct Findings {
        private let lines: [String]
        let error: String

        init(_ result: CommandResult) throws {
            error = result.error
            lines = result.error.split(separator: "\n").map(String.init)
            try #require(lines.contains { $0.hasPrefix("misbehaviour ") }, "the hook did not run: \(result.status) \(result.error)")
        }

        /// The errno of an attempt; 0 for success.
        func answer(_ attempt: String) -> Int32? {
            lines.first { $0.hasPrefix("misbehaviour \(attempt) ") }.flatMap { Int32($0.split(separator: " ")[2]) }
        }

        func status(_ name: String) -> String? {
            lines.first { $0.hasPrefix(name + ":") }?.split(whereSeparator: { $0 == "\t" || $0 == " " }).last.map(String.init)
        }
    }

    private static let pathAttempts = ["read", "list", "overwrite", "truncate", "create", "symlink", "directory", "rename", "unlink"]
    private static var hasLandlock: Bool { Confinement.availability().landlock.isActive }
    private static var hasFilters: Bool { Confinement.availability().filter.isActive }

    /// A directory that no argument names.
    private func victim(_ folder: TemporaryFolder) throws -> String {
        let path = folder.path + "/elsewhere"
        mkdir(path, 0o755)
        try writeFile(path + "/present", Array("precious\n".utf8))
        return path
    }

    private func hook(_ stage: String, _ victim: String) -> [String] {
        ["CFSOCI_DEBUG_MISBEHAVE=\(stage)", "CFSOCI_DEBUG_MISBEHAVE_PATH=\(victim)"]
    }

    private func expectUnharmed(_ victim: String) throws {
        #expect(fileList(victim) == ["present"])
        #expect(try readFile(victim + "/present") == Array("precious\n".utf8))
    }

    private func expectPathsDenied(_ found: Findings) {
        for attempt in Self.pathAttempts { #expect(found.answer(attempt) == EACCES, "\(attempt)") }
    }

    private func expectNoSockets(_ found: Findings) {
        for attempt in ["inet", "unix", "packet"] { #expect(found.answer(attempt) == EPERM, "\(attempt)") }
    }

    private func expectNoPrograms(_ found: Findings) {
        for attempt in ["program", "mount"] { #expect(found.answer(attempt) == EPERM, "\(attempt)") }
    }

    /// The capabilities that are left are those of the table, whatever is effective is no more, and nothing is gained by starting a program.
    private func expectCapabilities(_ found: Findings, _ rights: CommandRights?) throws {
        let mask = try #require(rights?.capabilities).reduce(UInt64(0)) { $0 | 1 << UInt64($1.rawValue) }
        for set in ["CapPrm", "CapEff"] {
            let left = try #require(found.status(set).flatMap { UInt64($0, radix: 16) })
            #expect(left == (Host.effectiveUserID == 0 && Host.hasCapability(.systemAdmin) ? mask : left & mask), "\(set) \(left)")
        }
        for set in ["CapInh", "CapAmb"] { #expect(found.status(set) == "0000000000000000", "\(set)") }
        #expect(found.status("NoNewPrivs") == "1")
    }

    /// The parts that a kernel lacks are named in the test's output and not taken for tested.
    private func expectConfined(_ found: Findings, _ rights: CommandRights?, sockets: Bool = true) throws {
        try expectCapabilities(found, rights)
        if Self.hasFilters {
            #expect(found.status("Seccomp") == "2")
            if sockets { expectNoSockets(found) }
            expectNoPrograms(found)
        } else {
            print("ConfinementTests: not checked here, because the kernel has no seccomp filters: sockets, programs")
        }
        guard rights?.limitsPaths == true else { return }
        if Self.hasLandlock {
            expectPathsDenied(found)
        } else {
            print("ConfinementTests: not checked here, because \(Confinement.availability().landlock.text("Landlock")): paths")
        }
    }

    // MARK: Attacks

    /// A layer of a layout: the network is never needed.
    @Test(arguments: ["split", "merge"]) func parserOfALocalPull(stage: String) throws {
        let store = try ContractStore()
        let victim = try victim(store.folder)
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let result = try store.run(["pull", "oci:" + store.layoutPath("a"), "a"], environment: hook(stage, victim))
        #expect(result.status == 0, "\(result.error)")
        try expectConfined(try Findings(result), Pull.rights)
        if Self.hasLandlock { try expectUnharmed(victim) }
        #expect(try Cfsoci.run(["fsck", "--repo", store.path]).status == 0)
    }

    /// A registry's layer: sockets of the Internet are needed while it is parsed, because it is parsed as it arrives. Not after that.
    @Test func parserOfARegistrysPull() throws {
        let store = try ContractStore()
        let victim = try victim(store.folder)
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let server = try LayoutServer(layout: store.layoutPath("a"))
        defer { server.stop() }
        let during = try Findings(try store.run(["pull", server.reference, "a"], environment: hook("split", victim)))
        try expectConfined(during, Pull.rights, sockets: false)
        if Self.hasFilters {
            #expect(during.answer("inet") == 0)
            #expect(during.answer("packet") == EAFNOSUPPORT)
        }
        // From another repository's point of view nothing is there yet.
        let other = try ContractStore()
        let after = try other.run(["pull", server.reference, "a"], environment: hook("merge", victim))
        #expect(after.status == 0, "\(after.error)")
        try expectConfined(try Findings(after), Pull.rights)
        if Self.hasLandlock { try expectUnharmed(victim) }
    }

    /// Commands that read a stored image, whose layers or EROFS image another person made.
    @Test func readersOfAnImage() throws {
        let (store, _) = try ContractStore.small()
        let victim = try victim(store.folder)
        mkdir(store.folder.path + "/tree", 0o755)
        try writeFile(store.folder.path + "/tree/file", Array("content\n".utf8))
        try store.succeed(["create-image", store.folder.path + "/tree", "named"])
        for (arguments, stage, rights) in [
            (["ls", "t"], "merge", List.rights), (["cat", "t", "/usr/small"], "merge", Cat.rights), (["dump", "t"], "merge", Dump.rights),
            (["compute-id", "t"], "merge", ComputeID.rights), (["ls", "named"], "image", List.rights),
        ] {
            let result = try store.run(arguments, environment: hook(stage, victim))
            #expect(result.status == 0, "\(arguments): \(result.error)")
            try expectConfined(try Findings(result), rights)
            if Self.hasLandlock { try expectUnharmed(victim) }
        }
    }

    @Test func repositoryIsNotWrittenByReaders() throws {
        let (store, _) = try ContractStore.small()
        let before = store.files
        // The repository itself is the place to write to.
        try writeFile(store.path + "/present", [1])
        let found = try Findings(try store.run(["ls", "t"], environment: hook("merge", store.path)))
        if Self.hasLandlock {
            #expect(found.answer("read") == 0)
            for attempt in Self.pathAttempts.dropFirst(2) { #expect(found.answer(attempt) == EACCES, "\(attempt)") }
        }
        unlink(store.path + "/present")
        if Self.hasLandlock { #expect(store.files == before) }
    }

    @Test func exportAndCopy() throws {
        let (store, _) = try ContractStore.small()
        let victim = try victim(store.folder)
        let other = store.folder.path + "/other"
        for (arguments, rights) in [
            (["copy", "t", "t", "--from", store.path, "--repo", other], Copy.rights),
            (["upgrade", "--repo", store.path], nil),
        ] {
            let result = try Cfsoci.run(arguments, environment: hook("merge", victim))
            #expect(result.status == 0, "\(result.error)")
            if result.error.contains("misbehaviour") { try expectConfined(try Findings(result), rights) }
        }
        if Self.hasLandlock { try expectUnharmed(victim) }
        let layout = store.folder.path + "/new"
        try Cfsoci.succeed(["export", "t", "oci:" + layout, "--repo", store.path, "--quiet"])
        try Cfsoci.succeed(["export", "t", "oci-archive:" + store.folder.path + "/a.tar", "--repo", store.path, "--quiet"])
        // An image that does not exist makes no directory.
        #expect(try store.run(["export", "no-such", "oci:" + store.folder.path + "/none"]).status != 0)
        #expect(access(store.folder.path + "/none", F_OK) != 0)
    }

    @Test(.enabled(if: isRoot, "needs root")) func mountsKeepWhatTheyNeed() throws {
        try requireMounting()
        let (store, _) = try ContractStore.small()
        let victim = try victim(store.folder)
        let directory = store.folder.path + "/mnt"
        mkdir(directory, 0o755)
        let result = try store.run(["mount", "t", directory], environment: hook("image", victim))
        defer { umount2(directory, Int32(MNT_DETACH)) }
        #expect(result.status == 0, "\(result.error)")
        let found = try Findings(result)
        #expect(found.status("NoNewPrivs") == "1")
        if Self.hasFilters {
            expectNoSockets(found)
            #expect(found.answer("mount") == 0)
        }
        #expect(try readFile(directory + "/usr/small") == Array("hello from test layer\n".utf8))
        try Cfsoci.succeed(["umount", directory])
    }

    @Test(.enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE")) func serverOfAnImage() throws {
        let place = try FuseFixture()
        let victim = try victim(place.store.folder)
        let result = try place.store.run(["mount", "--fuse", "tool", place.fuse], environment: hook("image", victim))
        #expect(result.status == 0, "\(result.error)")
        let found = try Findings(result)
        try expectCapabilities(found, .serving)
        if Self.hasFilters {
            expectNoSockets(found)
            #expect(found.answer("program") == (Host.isInFirstUserNamespace ? EPERM : 0))
        }
        for server in place.servers() {
            let status = String(decoding: try readFile("/proc/\(server)/status"), as: UTF8.self)
            #expect(status.contains("NoNewPrivs:\t1"))
            #expect(!Self.hasFilters || status.contains("Seccomp:\t2"))
        }
        try Cfsoci.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    // MARK: Switching off

    /// Without the sandbox the same attempts succeed, so the hook does what it says.
    @Test(arguments: [["--no-sandbox"], []]) func switchedOff(options: [String]) throws {
        let store = try ContractStore()
        let victim = try victim(store.folder)
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let result = try store.run(
            ["pull", "oci:" + store.layoutPath("a"), "a", "--verbose"] + options,
            environment: hook("split", victim) + (options.isEmpty ? ["CFSOCI_NO_SANDBOX=1"] : []))
        let found = try Findings(result)
        // The rename has taken the file away that was to be unlinked.
        for attempt in Self.pathAttempts.dropLast() + ["inet", "unix", "program"] { #expect(found.answer(attempt) == 0, "\(attempt)") }
        #expect(found.answer("unlink") == ENOENT)
        #expect(found.status("NoNewPrivs") == "0" && found.status("Seccomp") == "0")
        #expect(found.error.contains("sandbox: switched off"))
    }

    // MARK: What the user is told

    @Test func verboseSaysWhatIsActive() throws {
        let (store, _) = try ContractStore.small()
        let line = try #require(
            try store.run(["ls", "t", "--verbose"]).error.split(separator: "\n").first { $0.contains("sandbox: ") }.map(String.init))
        #expect(line.contains("no_new_privs") && line.contains(isRoot ? "only CAP_DAC_READ_SEARCH" : "no capabilities"))
        #expect(line.contains(Self.hasLandlock ? "Landlock (ABI " : "no Landlock"))
        #expect(!Self.hasFilters || line.contains("seccomp: no network, no programs"))
        #expect(try store.run(["ls", "t"]).error.isEmpty)
    }

    @Test func featuresSayWhatThereIs() throws {
        let document = try Cfsoci.succeed(["features", "/", "--json"]).json()["sandbox"]
        #expect(document?["enabled"] == true && document?["noNewPrivileges"] == true && document?["capabilities"] == true)
        #expect(document?["landlock"] == .bool(Self.hasLandlock) && document?["seccomp"] == .bool(Self.hasFilters))
        #expect(try Cfsoci.succeed(["features", "/"]).lines[2].contains("; sandbox: no_new_privs, capabilities, "))
        let off = try Cfsoci.succeed(["features", "/", "--json", "--no-sandbox"]).json()["sandbox"]
        #expect(off?["enabled"] == false && off?["landlock"] == false && off?["seccomp"] == false)
    }

    /// A refusal of the kernel names the path; the hint is only for paths that the confinement leaves out.
    @Test func refusalsNameTheSandbox() throws {
        let folder = try TemporaryFolder()
        for name in ["read", "written", "other"] { mkdir(folder.path + "/" + name, 0o755) }
        let root = ByteString(folder.path)
        let applied = AppliedConfinement(
            confinement: Confinement(), landlock: .active("ABI 7"), filter: .active(""), hasCapabilities: false,
            roots: .init(readable: [root + "/read"], writable: [root + "/written"]), descriptors: [])
        func refuses(_ operation: String, _ name: ByteString, _ errno: Errno = .accessDenied) -> Bool {
            applied.refuses(SystemError(operation, root + name, errno))
        }
        #expect(refuses("open", "/other/file") && refuses("open", "/other") && refuses("open", "/none/file"))
        #expect(!refuses("open", "/read/file") && !refuses("open", "/written/file") && !refuses("unlink", "/written/file"))
        #expect(refuses("unlink", "/read/file") && refuses("rename to", "/read/file") && refuses("link", "/other/file", .crossDevice))
        #expect(!refuses("open", "/other/file", .noEntry))
        // Names that only begin alike are others.
        #expect(refuses("open", "/readable"))
        symlink(folder.path + "/read", folder.path + "/other/link")
        #expect(!refuses("open", "/other/link"))
        Sandbox.applied.withLock { $0 = applied }
        defer { Sandbox.applied.withLock { $0 = nil } }
        let text = describe(SystemError("open", root + "/other/file", .accessDenied))
        #expect(text.hasPrefix("open \(folder.path)/other/file: Permission denied; ") && text.contains("--no-sandbox"))
        #expect(!describe(SystemError("open", root + "/read/file", .accessDenied)).contains("--no-sandbox"))
    }

    // MARK: The table

    @Test func everyCommandIsInTheTable() throws {
        #expect(ConfinementTable.all.count > 25)
        for (name, type) in ConfinementTable.all { #expect(type is any ConfinedCommand.Type, "\(name)") }
        let manual = String(decoding: try readFile(Fixtures.folder + "/../../README.md"), as: UTF8.self)
        let table = ConfinementTable.markdown
        #expect(manual.contains(table.joined(separator: "\n")), "README.md lacks this table:\n\(table.joined(separator: "\n"))")
    }

    /// What a command changes outside of the repository works as before: the files of the user's containers tools.
    @Test func credentialHelpersAreStarted() throws {
        let store = try ContractStore()
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let server = try LayoutServer(layout: store.layoutPath("a"))
        defer { server.stop() }
        let bin = store.folder.path + "/bin"
        mkdir(bin, 0o755)
        try writeFile(
            bin + "/docker-credential-test",
            Array("#!/bin/sh\necho '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"word\"}'\n".utf8))
        chmod(bin + "/docker-credential-test", 0o755)
        try writeFile(store.folder.path + "/auth.json", Array("{\"credsStore\":\"test\"}".utf8))
        let result = try store.run(
            ["login", "--get-login", "127.0.0.1:\(server.port)", "--authfile", store.folder.path + "/auth.json", "--verbose"],
            environment: ["PATH=\(bin):/usr/bin:/bin"])
        #expect(result.status == 0 && result.text == "user\n", "\(result.error)")
        #expect(result.error.contains("no Landlock") && (!Self.hasFilters || result.error.contains("network, programs")))
    }
}
