import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Options, exit statuses and messages that are common to all commands.
@Suite struct ContractUsageTests {
    // MARK: Secrets

    /// The password of a reference is shown by no message, not even by those of the parser of arguments.
    @Test(arguments: [
        "pull SECRET", "pull a b SECRET", "pull --policy SECRET x", "pull --policy=SECRET x", "pull --platform SECRET x", "push t SECRET",
        "push SECRET", "export SECRET oci:out", "export t SECRET", "copy SECRET --to /nowhere", "inspect SECRET", "tag SECRET x",
        "tag t SECRET", "untag SECRET", "rm SECRET", "referrers SECRET", "referrers list SECRET", "login SECRET", "logout SECRET",
        "ls SECRET", "cat SECRET x", "dump SECRET", "layer SECRET", "layer t SECRET", "import-layer SECRET", "mount SECRET /",
        "fsck SECRET",
        "prune SECRET", "images SECRET", "bogus SECRET", "SECRET", "--SECRET", "compute-id SECRET",
    ])
    func secretsOfReferences(command: String) throws {
        let store = try ContractStore()
        for secret in [
            "user:s3cret@host.invalid/team/app:1", "docker://user:s3cret@127.0.0.1:1/x", "https://user:s3cret@127.0.0.1:1/x?sig=s3cret",
        ] {
            let arguments = command.split(separator: " ").map { String($0.replacing("SECRET", with: secret)) }
            let result = try store.run(arguments)
            #expect(result.status != 0)
            #expect(!(result.error + result.text).contains("s3cret"), "\(result.error)")
        }
    }

    // MARK: Where the repository is

    @Test func globalOptionsStandBeforeAndAfter() throws {
        let (store, _) = try ContractStore.small()
        let wanted = try store.succeed(["images"]).text
        for arguments in [
            ["--repo", store.path, "images"], ["images", "--repo", store.path], ["--quiet", "images", "--repo=" + store.path],
            ["--repo", store.path, "-q", "images"], ["--repo", store.path, "--progress", "none", "images", "-v"],
            ["--repo", "/nowhere", "images", "--repo", store.path],
        ] {
            let result = try Cfsoci.run(arguments)
            #expect(result.status == 0 && result.text == wanted, "\(arguments): \(result.error)")
        }
        for arguments in [
            ["--repo", store.path, "stream", "cat", "refs/oci/t"], ["stream", "--repo", store.path, "cat", "refs/oci/t"],
            ["stream", "cat", "--repo", store.path, "refs/oci/t"], ["--repo", store.path, "referrers", "list", "t"],
        ] {
            let result = try Cfsoci.run(arguments)
            #expect(result.status == 0, "\(arguments): \(result.error)")
        }
    }

    @Test func theEnvironmentNamesTheRepository() throws {
        let (store, _) = try ContractStore.small()
        let wanted = try store.succeed(["images"]).text
        let variable = ["CFSOCI_REPO=" + store.path]
        #expect(try Cfsoci.run(["images"], environment: variable).text == wanted)
        // An option takes precedence.
        let other = try Cfsoci.run(["images", "--repo", "/nowhere/x"], environment: variable)
        #expect(expectRefusal(other, status: 3).hasPrefix("/nowhere/x: no repository there"))
        let user = try launch("env", ["HOME=/nowhere", variable[0], Cfsoci.binary, "images", "--user"])
        #expect(expectRefusal(user, status: 3).hasPrefix("/nowhere/.var/lib/composefs: no repository there"))
        let homeless = try launch("env", ["-u", "HOME", Cfsoci.binary, "--user", "images"])
        #expect(expectRefusal(homeless).contains("HOME is not set"))
    }

    @Test(.enabled(if: access("/sysroot/composefs", F_OK) != 0, "the machine has a repository of its own"))
    func theSystemsRepository() throws {
        #expect(expectRefusal(try Cfsoci.run(["images", "--system"]), status: 3).hasPrefix("/sysroot/composefs: no repository there"))
    }

    @Test(.enabled(if: isRoot && hasProgram("setpriv") && access("/sysroot", F_OK) != 0, "needs root, setpriv and no /sysroot"))
    func theDefault() throws {
        if access("/var/lib/composefs", F_OK) != 0 {
            #expect(expectRefusal(try Cfsoci.run(["images"]), status: 3).hasPrefix("/var/lib/composefs: no repository there"))
        }
        let user = try launch(
            "setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nowhere", Cfsoci.binary, "images"])
        if user.status == 127 || user.status == 126 { return }  // others cannot read the build
        #expect(expectRefusal(user, status: 3).hasPrefix("/nowhere/.var/lib/composefs: no repository there"))
    }

    @Test(arguments: [
        ["--user", "--system"], ["--user", "--repo", "/x"], ["--system", "--repo", "/x"], ["--quiet", "--verbose"], ["--repo", ""],
    ])
    func exclusions(options: [String]) throws {
        for arguments in [options + ["images"], ["images"] + options, options.prefix(1) + ["images"] + options.dropFirst()] {
            // Keep an option and its value together.
            if options.first == "--repo", arguments[1] != "" { continue }
            let result = try Cfsoci.run(Array(arguments))
            #expect(result.status == 64, "\(arguments): \(result.text)\(result.error)")
            #expect(result.output.isEmpty)
            #expect(result.error.contains("exclude each other") || result.error.contains("--repo is empty"))
        }
    }

    /// Every command that does not create a repository says how to create one, and creates nothing.
    @Test(arguments: [
        ["images"], ["list"], ["inspect", "x"], ["tag", "x", "y"], ["seal", "x"], ["untag", "x"], ["rm", "x"], ["referrers", "list", "x"],
        ["referrers", "add", "x", "y"], ["referrers", "remove", "x", "y"], ["ls", "x"], ["cat", "x", "y"],
        ["layer", "sha256:0000000000000000000000000000000000000000000000000000000000000000"],
        ["import-layer", "sha256:0000000000000000000000000000000000000000000000000000000000000000"], ["dump", "x"], ["compute-id", "x"],
        ["mount", "x", "/tmp"], ["fsck"], ["fsck", "x"], ["gc"], ["gc", "--dry-run"], ["upgrade"],
        ["image-objects", "x"], ["stream", "cat", "x"],
        ["df"], ["du"], ["info"], ["history", "x"], ["diff", "x", "y"],
    ])
    func missingRepository(arguments: [String]) throws {
        let folder = try TemporaryFolder()
        for path in [folder.path + "/repo", folder.path + "/a/b", folder.path] {
            let message = expectRefusal(try Cfsoci.run(arguments + ["--repo", path]), status: 3)
            #expect(message == "\(path): no repository there; `cfsoci init \(path)` makes one, and so does `cfsoci pull`", "\(message)")
        }
        try writeFile(folder.path + "/file", [])
        let message = expectRefusal(try Cfsoci.run(arguments + ["--repo", folder.path + "/file"]))
        #expect(message.contains(folder.path + "/file"))
        #expect(fileList(folder.path) == ["file"])
    }

    // MARK: Exit statuses

    @Test func helpAndVersion() throws {
        let version = try Cfsoci.succeed(["--version"])
        #expect(version.error == "")
        #expect(version.lines.count == 1)
        #expect(version.lines[0].split(separator: ".").allSatisfy { Int($0) != nil } && version.lines[0].contains("."))
        for arguments in [["--help"], ["-h"], ["help"], ["help", "pull"], ["pull", "--help"], ["referrers", "list", "--help"]] {
            let result = try Cfsoci.succeed(arguments)
            #expect(result.text.contains("USAGE: cfsoci"), "\(arguments)")
            #expect(result.error == "")
        }
        let help = try Cfsoci.succeed(["--help"]).text
        for command in [
            "init", "pull", "import-layer", "images, list", "inspect", "tag", "seal", "untag", "rm", "layer", "ls", "cat", "dump",
            "compute-id",
            "create-image", "create-dumpfile", "mount", "umount", "fsck", "gc", "referrers", "upgrade", "image-objects", "stream",
        ] {
            #expect(help.contains("\n  \(command) "), "\(command)")
        }
        #expect(help.contains("CFSOCI_REPO") && help.contains("130"))
    }

    @Test func startsFast() throws {
        let fastest = try (0..<5).map { _ in
            let begun = now()
            try Cfsoci.succeed(["--version"])
            return now() - begun
        }.min()
        // This is a debug build; tools/bench measures the release build's start-up.
        #expect((fastest ?? 1) < 0.1)
    }

    @Test(arguments: [
        ["bogus"], ["images", "--bogus"], ["images", "extra"], ["pull"], ["inspect"], ["tag", "x"], ["rm"], ["cat", "x"], ["layer"],
        ["mount", "x"], ["umount"], ["mount", "x", "/tmp", "--upperdir", "/tmp"], ["mount", "x", "/tmp", "--workdir", "/tmp"],
        ["init", "/nowhere/x", "--algorithm", "md5"], ["init", "/nowhere/x", "--erofs-version", "7"], ["pull", "x", "--jobs", "0"],
        ["fsck", "--metadata-only", "--deep"], ["images", "--progress", "loud"], ["images", "--repo"], ["dump", "x", "--xattrs", "some"],
        ["create-dumpfile", "/", "--hash", "md5"], ["compute-id", "--path", "/", "--hash", "md5"], ["referrers", "add", "x"],
        ["inspect", "x", "--json", "--manifest"], ["bo\u{1b}[31mgus"], ["images", "\u{1b}[31m", "\u{9b}2J"],
    ])
    func usage(arguments: [String]) throws {
        let result = try Cfsoci.run(arguments, environment: ["CFSOCI_REPO=/nowhere/at/all"])
        #expect(result.status == 64, "\(arguments): \(result.error)")
        #expect(result.output.isEmpty)
        #expect(result.error.hasPrefix("cfsoci: error: ") && result.error.contains("Usage: "), "\(result.error)")
        #expect(!hasControls(result.error.filter { $0 != "\n" }), "\(Array(result.error.utf8))")
    }

    /// Interrupted before the first byte: the server accepts the connection and never answers.
    @Test func interruptedPull() throws {
        let store = try ContractStore()
        let (listener, port) = try #require(Loopback.listen())
        defer { close(listener) }
        let reference = "127.0.0.1:\(port)/name:tag"
        let before = store.files
        let pid = try start(
            Cfsoci.binary, ["pull", reference, "--repo", store.path], output: store.folder.path + "/out", error: store.folder.path + "/err")
        let connection = accept(listener, nil, nil)
        #expect(connection >= 0)
        kill(pid, SIGINT)
        #expect(wait(for: pid) == 130, "\(errorText(store))")
        close(connection)
        #expect(try readFile(store.folder.path + "/out") == [])
        #expect(store.files.filter { !$0.hasPrefix(".staging") } == before)
        try store.succeed(["gc"])
        #expect(store.files == before)
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// Interrupted in the middle of a layer from a pipe.
    @Test func interruptedImport() throws {
        let store = try ContractStore()
        let pipe = store.folder.path + "/pipe"
        try #require(mkfifo(pipe, 0o600) == 0)
        let archive = LayoutBuilder.large(layers: 1, filesPerLayer: 200).layers[0]
        let diffID = ContentDigest.of(archive).description
        let pid = try start(
            "sh", ["-c", #"exec "$0" import-layer "$1" --repo "$2" < "$3""#, Cfsoci.binary, diffID, store.path, pipe],
            output: store.folder.path + "/out", error: store.folder.path + "/err")
        try feed(pipe, Array(archive.prefix(archive.count / 2)), then: { kill(pid, SIGINT) })
        #expect(wait(for: pid) == 130, "\(errorText(store))")
        #expect(try readFile(store.folder.path + "/out") == [])
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
        _ = try store.refuse(["layer", diffID])
        try store.succeed(["import-layer", diffID], input: archive)
        #expect(try store.succeed(["layer", diffID]).output == archive)
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    private func errorText(_ store: ContractStore) -> String {
        String(decoding: (try? readFile(store.folder.path + "/err")) ?? [], as: UTF8.self)
    }

    /// Many failures while other threads are working: always a message, never a crash.
    @Test func failuresInTheMiddleOfWork() throws {
        let store = try ContractStore()
        let archive = LayoutBuilder.large(layers: 1, filesPerLayer: 100).layers[0]
        let half = Array(archive.prefix(archive.count / 2))
        for _ in 0..<40 {
            #expect(try store.refuse(["import-layer", ContentDigest.of(archive).description], input: half).contains("ends"))
            removeTree(store.path + "/objects")
            mkdir(store.path + "/objects", 0o700)
        }
    }

    /// Writes to a pipe and runs `body` while its write end is still open.
    private func feed(_ path: String, _ bytes: [UInt8], then body: () -> Void) throws {
        let descriptor = open(path, O_WRONLY)
        guard descriptor >= 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress?.advanced(by: start), $0.count - start) }
            guard count > 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
            start += count
        }
        body()
    }

    @Test func aFullDiskBehindStandardOutputIsAnError() throws {
        let (store, _) = try ContractStore.small()
        let result = try launch("sh", ["-c", #"exec "$0" images --repo "$1" > /dev/full"#, Cfsoci.binary, store.path])
        #expect(expectRefusal(result).hasPrefix("write to standard output: No space left"))
        let closed = try launch(
            "bash", ["-c", #""$0" cat t usr/big --repo "$1" | true; echo "${PIPESTATUS[0]}""#, Cfsoci.binary, store.path])
        // The pipe may or may not be open by now.
        #expect(["0\n", "1\n"].contains(closed.text), "\(closed.text)")
    }

    // MARK: Progress

    @Test func progressAsJSON() throws {
        let folder = try TemporaryFolder()
        let digest = try LayoutBuilder.small().write(to: folder.path + "/layout")
        let arguments = ["pull", "oci:" + folder.path + "/layout", "t", "--repo", folder.path + "/repo", "--progress", "json"]
        let result = try Cfsoci.succeed(arguments + ["--json"])
        #expect(try result.json()["manifestDigest"] == .string(digest.description))
        let events = try result.error.split(separator: "\n").map { try JSONValue.parse(Array($0.utf8)) }
        let names = events.compactMap { $0["event"]?.string }
        #expect(names.count == events.count)
        #expect(names.prefix(2) == ["schema", "note"])
        #expect(events[1]["message"]?.string?.hasPrefix("made a repository at ") == true)
        #expect(names.last == "done")
        for name in ["resolving", "resolved", "layerStarted", "layerStored", "merging", "writingImage", "publishing"] {
            #expect(names.contains(name), "\(name) in \(names)")
        }
        let resolved = try #require(events.first { $0["event"] == "resolved" })
        #expect(resolved["manifestDigest"] == .string(digest.description))
        #expect(resolved["layers"]?.array?.count == 2)
        #expect(resolved["layers"]?[0]?.object?.keys == ["digest", "size"])
        #expect(Set(events.filter { $0["event"] == "layerStored" }.compactMap { $0["layer"]?.int64 }) == [0, 1])
        let again = try Cfsoci.succeed(arguments)
        #expect(try again.error.split(separator: "\n").count { try JSONValue.parse(Array($0.utf8))["event"] == "layerPresent" } == 2)
    }

    @Test func progressAsText() throws {
        let store = try ContractStore()
        let digest = try LayoutBuilder.small().write(to: store.layoutPath("t"))
        func pull(_ options: [String]) throws -> CommandResult { try store.run(["pull", "oci:" + store.layoutPath("t"), "t"] + options) }
        let plain = try pull(["--progress", "plain"])
        #expect(plain.status == 0)
        let lines = plain.error.split(separator: "\n").map(String.init)
        #expect(lines.first?.hasPrefix("resolving ") == true)
        #expect(lines.contains { $0.hasPrefix("manifest \(digest), 2 layers, ") })
        #expect(lines.count { $0.hasSuffix(": stored") } == 2)
        #expect(lines.last == "done")
        // Without a terminal there is no progress display, unless it is requested.
        for options in [[], ["--progress", "auto"], ["--progress", "none"], ["--quiet"]] { #expect(try pull(options).error == "") }
        #expect(try pull(["--progress", "tty"]).error.contains("\u{1b}["))
        let verbose = try pull(["--verbose"])
        #expect(verbose.error.contains("profile  ") && verbose.error.contains("peak memory "))
        #expect(verbose.lines[..<4] == plain.lines[..<4])
    }
}
