import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Images in use are not removed: mounted, deployed and in boot entries, with or without a name.
@Suite struct InUseTests {
    private static let next = LayoutBuilder(layers: [
        tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"),
            TarMember(name: "usr/new", mode: 0o644, content: [UInt8](repeating: 9, count: 5000)),
        ])
    ])

    /// A mounted image whose tag has moved to another image.
    private func moved(_ options: [String]) throws -> FuseFixture {
        let fixture = try FuseFixture()
        try fixture.store.succeed(["mount", "tool", fixture.fuse, "--quiet"] + options)
        try Self.next.write(to: fixture.store.layoutPath("next"))
        try fixture.store.succeed(["pull", "oci:" + fixture.store.layoutPath("next"), "docker.io/library/tool:latest", "--quiet"])
        return fixture
    }

    private func objectCount(_ store: ContractStore) -> Int {
        store.files.count { $0.hasPrefix("objects/") && $0.utf8.count > "objects/00/".utf8.count }
    }

    @Test(arguments: [[], ["--fuse"]], [["gc"], ["prune"], ["prune", "--all", "--yes"]])
    func mountedImageWithoutNameStays(_ options: [String], _ collect: [String]) throws {
        try requireMounting()
        let fixture = try moved(options)
        let before = objectCount(fixture.store)
        let gone =
            collect.contains("--all") ? try fixture.store.succeed(["prune", "--all", "--dry-run", "--json"]).json()["objectsRemoved"] : 0
        let report = try fixture.store.succeed(collect + ["--json"]).json()
        let id = try #require(report["imagesInUse"]?[0]?["imageId"]?.string)
        #expect(report["imagesInUse"]?.array?.count == 1 && report["imagesInUse"]?[0]?["uses"]?[0]?["place"] == .string(fixture.fuse))
        // Everything of one image stays, including manifest and layer. With --all, the other image is removed.
        #expect(report["objectsRemoved"] == gone)
        #expect(
            try fixture.store.succeed(["gc"]).lines[0].hasPrefix("Kept image \(id), which no name leads to: mounted at \(fixture.fuse)"))
        #expect(collect.contains("--all") == (objectCount(fixture.store) < before))
        #expect(try readFile(fixture.fuse + "/usr/tool") == FuseFixture.big)
        #expect(try readFile(fixture.fuse + "/usr/other") == Array(FuseFixture.big.dropFirst()))
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
        #expect((try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
        #expect(try fixture.store.object(with: FuseFixture.big) == nil)
        #expect(!fixture.store.files.contains { $0.hasPrefix(".leases") || $0.hasPrefix("images/refs/.leases") })
    }

    /// The image can be named again while it is mounted.
    @Test func keptImageCanBeTaggedAgain() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        try fixture.mount()
        let digest = try #require(try fixture.store.succeed(["inspect", "tool"]).json()["manifestDigest"]?.string)
        try fixture.store.succeed(["untag", "docker.io/library/tool:latest", "--force"])
        try fixture.store.succeed(["gc"])
        try fixture.store.succeed(["tag", digest, "again"])
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
        #expect(try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// Also a mount that is visible only in another mount namespace, and not to the first process of that namespace.
    @Test func otherNamespaces() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        // The namespace's first process is in a chroot, so its table does not list the mount. That of the second process does.
        let script = #"""
            mkdir -p "$2/root"
            cp /bin/sleep "$2/root/"; for library in $(ldd /bin/sleep | grep -o '/[^ ]*'); do
                mkdir -p "$2/root/$(dirname "$library")"; cp "$library" "$2/root/$library"; done
            mount --make-rprivate /
            "$CFSOCI" --repo "$1" --quiet mount tool "$2/kernel" </dev/null
            (exec chroot "$2/root" /sleep 60) & first=$!
            sleep 60 & second=$!
            echo "$first $second" > "$2/ready.new"; mv "$2/ready.new" "$2/ready"
            """#
        let folder = fixture.store.folder.path
        _ = try mustShell(
            #"nohup unshare --mount bash -euc "$3" bash "$1" "$2" >"$2/log" 2>&1 & for i in $(seq 400); do [ -e "$2/ready" ] && exit; sleep 0.025; done; cat "$2/log"; exit 1"#,
            [fixture.store.path, folder, script])
        let pids = String(decoding: try readFile(folder + "/ready"), as: UTF8.self).split(whereSeparator: \.isWhitespace).compactMap {
            pid_t($0)
        }
        defer { for pid in pids { kill(pid, SIGKILL) } }
        #expect(pids.count == 2 && !fixture.isMounted(fixture.kernel))
        #expect(try fixture.store.refuse(["rm", "tool"], status: 6).contains("mounted at \(fixture.kernel) (process \(pids[1]) (sleep))"))
        try fixture.store.succeed(["rm", "tool", "--force"])
        #expect(try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        for pid in pids { kill(pid, SIGKILL) }
        for _ in 0..<200 where pids.contains(where: { kill($0, 0) == 0 }) { usleep(10_000) }
        #expect((try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
    }

    /// mount.composefs is called with files, so the source is the image's path.
    @Test(arguments: ["images", "objects", "elsewhere"])
    func mountedByTheFilesName(_ how: String) throws {
        try requireMounting()
        let fixture = try FuseFixture()
        let id = try fixture.store.succeed(["compute-id", "tool"]).lines[0]
        let object = fixture.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var image = how == "images" ? fixture.store.path + "/images/" + id : object
        if how == "elsewhere" {
            image = fixture.store.folder.path + "/copy.cfs"
            try writeFile(image, try readFile(object))
        }
        _ = try mustShell(#""$CFSOCI" mount.composefs "$1" "$2" -o "basedir=$3/objects""#, [image, fixture.kernel, fixture.store.path])
        try fixture.store.succeed(["rm", "tool", "--force"])
        let report = try fixture.store.run(["gc", "--json"])
        #expect(report.status == 0, "\(report.error)")
        #expect(try readFile(fixture.kernel + "/usr/tool") == FuseFixture.big)
        #expect(try readFile(fixture.kernel + "/usr/other") == Array(FuseFixture.big.dropFirst()))
        if how == "elsewhere" {
            // Without the file, the objects of the mount cannot be determined.
            unlink(image)
            #expect(
                try fixture.store.refuse(["gc"]).hasPrefix(
                    "\(fixture.kernel): this mount shows the repository's objects, and its image, \(image), cannot"))
            #expect(try readFile(fixture.kernel + "/usr/tool") == FuseFixture.big)
        } else {
            #expect(try report.json()["objectsRemoved"] == 0)
        }
        try fixture.store.succeed(["umount", fixture.kernel])
        #expect(try fixture.store.succeed(["gc"]).status == 0)
        #expect(try fixture.store.object(with: FuseFixture.big) == nil)
    }

    @Test func deployedImageWithoutNameStays() throws {
        let (store, _) = try ContractStore.small()
        let id = try store.succeed(["compute-id", "t"]).lines[0]
        for path in ["/state", "/state/deploy", "/state/deploy/" + id] { mkdir(store.folder.path + path, 0o755) }
        #expect(
            try store.refuse(["untag", "t"], status: 6).contains(
                "is the last name of an image that is in use: deployed (state/deploy/\(id))"))
        try store.succeed(["untag", "t", "--force"])
        let before = store.files
        for collect in [["gc"], ["prune"], ["prune", "--all"]] {
            let report = try store.succeed(collect + ["--json"]).json()
            #expect(
                report["imagesInUse"] == [
                    ["imageId": .string(id), "uses": [["use": "deployed", "place": .string("state/deploy/" + id), "process": .null]]]
                ])
            #expect(store.files == before)
        }
        rmdir(store.folder.path + "/state/deploy/" + id)
        #expect((try store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
    }

    // MARK: Names

    @Test(arguments: [[], ["--fuse"]])
    func lastNameNeedsForce(_ options: [String]) throws {
        try requireMounting()
        let fixture = try FuseFixture()
        try fixture.store.succeed(["mount", "tool", fixture.fuse, "--quiet"] + options)
        try fixture.store.succeed(["tag", "tool", "second"])
        // One name of several can be removed.
        try fixture.store.succeed(["untag", "second"])
        let name = "docker.io/library/tool:latest"
        let manifest = try #require(try fixture.store.succeed(["inspect", "tool"]).json()["manifestDigest"]?.string)
        let who = options.isEmpty ? "" : " (process \(fixture.servers()[0]) (cfsoci))"
        let reason =
            "\"\(name)\" is the last name of an image that is in use: mounted at \(fixture.fuse)\(who); unmount it first, or remove"
        #expect(try fixture.store.refuse(["untag", name], status: 6).hasPrefix(reason))
        #expect(try fixture.store.refuse(["rm", "tool"], status: 6).hasPrefix(reason))
        try fixture.store.succeed(["tag", "tool", "second"])
        // A digest stands for all names, so none is removed.
        #expect(try fixture.store.refuse(["rm", manifest], status: 6).contains(" is the last name of an image that is in use: "))
        #expect(try fixture.store.succeed(["images", "--json"]).json()["images"]?.array?.count == 2)
        #expect(try fixture.store.succeed(["rm", "--force", manifest]).lines.count == 2)
        #expect(try fixture.store.succeed(["images"]).lines == ["No images"])
    }

    @Test func nameOfADirectorysImage() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        let folder = fixture.store.folder.path + "/tree"
        mkdir(folder, 0o755)
        try writeFile(folder + "/file", FuseFixture.big)
        try fixture.store.succeed(["create-image", folder, "made"])
        try fixture.store.succeed(["mount", "made", fixture.kernel, "--quiet"])
        #expect(
            try fixture.store.refuse(["rm", "made"], status: 6).contains(
                "\"made\" is the last name of an image that is in use: mounted at \(fixture.kernel)"))
        try fixture.store.succeed(["rm", "made", "--force"])
        try fixture.store.succeed(["gc"])
        #expect(try readFile(fixture.kernel + "/file") == FuseFixture.big)
    }

    @Test func listShowsWhatIsInUse() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        _ = try fixture.store.pull(LayoutBuilder.small(), as: "t")
        #expect(try fixture.store.succeed(["images"]).lines[0].hasSuffix("  REFS"))
        try fixture.mount()
        try fixture.store.succeed(["mount", "tool", fixture.kernel, "--quiet"])
        let table = try fixture.store.succeed(["images"]).lines
        #expect(
            table[0].hasSuffix("  REFS  IN USE") && table[1].hasSuffix("  0     mounted") && table[2].hasSuffix("  0     -"), "\(table)")
        let images = try fixture.store.succeed(["images", "--json"]).json()["images"]
        let server = Int64(fixture.servers()[0])
        #expect(
            images?[0]?["inUse"] == [
                ["use": "mounted", "place": .string(fixture.fuse), "process": .integer(server)],
                ["use": "mounted", "place": .string(fixture.kernel), "process": .null],
            ])
        #expect(images?[1]?["inUse"] == [])
    }

    // MARK: Leases

    /// A killed server leaves its lease. The image stays in use as long as the dead mount exists.
    @Test func killedServersLeaseIsRemoved() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        try fixture.mount()
        #expect(fixture.store.files.count { $0.hasPrefix(".leases/") } == 1)
        kill(fixture.servers()[0], SIGKILL)
        for _ in 0..<200 where !fixture.servers().isEmpty { usleep(25_000) }
        try fixture.store.succeed(["rm", "tool", "--force"])
        #expect(try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        #expect(!fixture.store.files.contains { $0.hasPrefix(".leases") || $0.hasPrefix("images/refs/.leases") })
        umount2(fixture.fuse, Int32(MNT_DETACH))
        #expect((try fixture.store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 ?? 0) > 5)
    }

    /// Programs that know only references keep the image, because a lease has a reference.
    @Test func leaseHasAReference() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        let id = try fixture.store.succeed(["compute-id", "tool"]).lines[0]
        try fixture.mount()
        let links = fixture.store.files.filter { $0.hasPrefix("images/refs/.leases/") }
        #expect(links.count == 1)
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink(fixture.store.path + "/" + (links.first ?? ""), &buffer, 4095)
        #expect(String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self) == "../../" + id)
        // It is not a name.
        #expect(try fixture.store.succeed(["images", "--json"]).json()["images"]?.array?.count == 1)
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// A repository that is not writable has no lease, so its server holds the lock.
    @Test func withoutALeaseTheLockIsHeld() throws {
        try requireMounting()
        let fixture = try FuseFixture()
        chown(fixture.store.path, 12345, 12345)
        try fixture.mount()
        chown(fixture.store.path, 0, 0)
        #expect(!fixture.store.files.contains { $0.hasPrefix(".leases") })
        let refusal = try fixture.store.run(["gc", "--wait", "0.2"])
        #expect(refusal.status == 6)
        #expect(refusal.error.contains("the repository is in use by process \(fixture.servers()[0]) (cfsoci); "), "\(refusal.error)")
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
        try fixture.store.succeed(["gc"])
    }

    // MARK: Waiting and asking

    @Test func waitsAsLongAsItIsTold() throws {
        let (store, _) = try ContractStore.small()
        let directory = open(store.path, O_RDONLY | O_DIRECTORY)
        defer { close(directory) }
        #expect(flock(directory, LOCK_SH) == 0)
        for command in [["gc"], ["prune"]] {
            #expect(
                try store.refuse(command + ["--wait", "0"], status: 6)
                    == "\(store.path): the repository is in use by process \(getpid()) (\(try name(of: getpid()))); repeat the command when it has "
                    + "ended, or wait for it with --wait forever")
            let started = try store.run(command + ["--wait", "0.3"])
            #expect(started.status == 6 && started.error.hasPrefix("waiting for another process that uses the repository\n"))
        }
        // A dry run does not wait. A real collection waits.
        try store.succeed(["gc", "--dry-run", "--wait", "0"])
        #expect(flock(directory, LOCK_EX) == 0)
        #expect(try store.refuse(["gc", "--wait", "0"], status: 6).contains("the repository is in use by process \(getpid()) "))
        #expect(flock(directory, LOCK_UN) == 0)
        try store.succeed(["gc", "--wait", "forever"])
        for wrong in ["-1", "x", "", "1e3", "inf", "nan", "99999999999"] { #expect(try store.run(["gc", "--wait=" + wrong]).status == 64) }
    }

    private func name(of pid: pid_t) throws -> String {
        String(decoding: try readFile("/proc/\(pid)/comm").dropLast(), as: UTF8.self)
    }

    @Test func pruneAllAsks() throws {
        let (store, _) = try ContractStore.small()
        let before = store.files
        #expect(
            try store.refuse(["prune", "--all"])
                == "prune --all would remove 1 tag, and there is no terminal to ask on: confirm with --yes, or see --dry-run")
        #expect(store.files == before)
        func onTerminal(_ answer: String) throws -> CommandResult {
            try shell(
                #"export CFSOCI; printf '%s\n' "$2" | script --quiet --return --echo never --command "'$CFSOCI' prune --all --repo '$1'" /dev/null"#,
                [store.path, answer])
        }
        for answer in ["n", "", "yesterday"] {
            let result = try onTerminal(answer)
            #expect(result.status == 1 && result.text.contains("Remove this tag? [y/N] ") && result.text.contains("nothing was removed"))
            #expect(store.files == before, "\(result.text)")
        }
        let result = try onTerminal("y")
        #expect(result.status == 0 && result.text.contains("Removed tag t"), "\(result.text)\(result.error)")
        // If no tag would be removed, there is no question.
        try store.succeed(["prune", "--all"])
    }

    // MARK: Rounds

    /// `tools/in-use` runs more of them.
    @Test func rounds() throws {
        try requireMounting()
        let rounds = getenv("CFSOCI_IN_USE_ROUNDS").map { String(cString: $0) } ?? "20"
        let result = try launch("python3", [Fixtures.folder + "/in-use.py", Cfsoci.binary, rounds])
        // The seed, to reproduce a failure.
        print(result.lines.first ?? "nothing was printed")
        #expect(result.status == 0, "\(result.text)\(result.error)")
        #expect(result.lines.last?.hasPrefix("\(rounds) rounds, ") == true && result.lines.last?.hasSuffix(", 0 failures") == true)
    }
}
