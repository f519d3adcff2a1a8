import ArgumentParser
import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

@testable import ComposefsCommands

/// How the command answers mistakes, and what all commands have in common for scripts.
@Suite struct CommandHabitTests {
    private func run(_ line: String, _ environment: [String] = ["CFSOCI_REPO=/nowhere/at/all"]) throws -> CommandResult {
        try Cfsoci.run(line.split(separator: " ").map(String.init), environment: environment)
    }

    // MARK: Names of commands

    /// Without a stated name, the parser makes one from the name of the type when the program starts, and that costs each start a millisecond.
    @Test func everyCommandStatesItsName() {
        for (name, type) in ConfinementTable.all { #expect(type.configuration.commandName != nil, "\(name)") }
    }

    @Test(arguments: [
        ("image ls", "cfsoci images"), ("image save x -", "cfsoci save"), ("image load x", "cfsoci load"), ("image rm x", "cfsoci rm"),
        ("system df", "cfsoci df"), ("system prune", "cfsoci prune"),
        ("pul alpine", "cfsoci pull"), ("imagse", "cfsoci images"), ("remove x", "cfsoci rm"), ("verify", "cfsoci fsck"),
        ("--quiet umuont /x", "cfsoci umount"), ("--repo /x inpsect y", "cfsoci inspect"), ("boot imgae x", "cfsoci boot image"),
        ("referrers lst x", "cfsoci referrers list"), ("comp x", "cfsoci compute-id"), ("help pul", "cfsoci pull"),
    ])
    func unknownCommands(line: String, wanted: String) throws {
        let result = try run(line)
        #expect(result.status == 64 && result.output.isEmpty, "\(result.text)")
        #expect(result.error.hasPrefix("cfsoci: error: there is no command \"cfsoci "), "\(result.error)")
        #expect(result.error.contains("cfsoci: hint: did you mean `\(wanted)`?\n"), "\(result.error)")
    }

    @Test(arguments: ["zzzzzzz", "run alpine", "help nosuch", "boot zzzzzzz", "-- bogus"])
    func unlikeAnyCommand(line: String) throws {
        let result = try run(line)
        #expect(result.status == 64 && result.output.isEmpty, "\(result.text)")
        #expect(result.error.hasPrefix("cfsoci: error: ") && !result.error.contains("did you mean"), "\(result.error)")
    }

    /// Names that other programs have for the same thing.
    @Test func acceptedNames() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "u"])
        #expect(try store.succeed(["rmi", "u"]).text == "Removed tag u\n")
        #expect(try Cfsoci.succeed(["rmi", "--help"]).text == Cfsoci.succeed(["rm", "--help"]).text)
        #expect(try Cfsoci.succeed(["help", "unmount"]).text == Cfsoci.succeed(["umount", "--help"]).text)
    }

    @Test(arguments: ["", "--repo x", "-q", "boot", "referrers", "stream", "--user boot"])
    func withoutCommand(line: String) throws {
        let result = try run(line, [])
        #expect(result.status == 64 && result.output.isEmpty, "\(result.text)")
        #expect(result.error.contains("USAGE: cfsoci") && result.error.contains("SUBCOMMANDS"), "\(result.error)")
    }

    /// The parser would take the next word as the value.
    @Test(arguments: [
        "--repo= images", "images --repo=", "--progress= images", "pull --policy= x", "pull x --platform= y", "images --json=",
    ])
    func optionsWithoutValue(line: String) throws {
        let result = try run(line)
        #expect(result.status == 64 && result.output.isEmpty, "\(result.text)")
        #expect(result.error.hasPrefix("cfsoci: error: --") && result.error.contains("= has no value"), "\(result.error)")
    }

    /// `disk IMAGE` is short for `disk create IMAGE`: the image's name is no command.
    @Test func commandsThatNeedNoName() throws {
        #expect(try CommandWords.checked(["disk", "alpine", "-o", "x"]).arguments == ["disk", "alpine", "-o", "x"])
        let (store, _) = try ContractStore.small()
        #expect(try store.run(["disk", "nothing", "--kind", "single", "-o", store.folder.path + "/x"]).status == 3)
    }

    /// A command is parsed without the others if that can be done.
    @Test(arguments: [
        "ls alpine", "ls -lR alpine /etc --repo /x", "--repo /x -q ls alpine", "--repo=/x ls --user-x alpine", "images --json --user",
        "--user images --digests", "pull --progress json docker.io/library/alpine", "--progress plain pull -v --jobs 3 oci:/x:y z",
        "rmi x y",
        "boot image x", "boot -q", "disk alpine -o x", "disk create alpine -o x --kind single", "referrers list x --json", "mount",
        "mount a /b -q",
        "umount --", "umount -- -x", "version --json", "--no-sandbox fsck --repair --from oci:/x", "cat x", "cat -- x y", "tag a",
        "gc --dry-run",
        "ls --help", "help ls", "--version", "ls --version", "-q --version", "images --nonsense", "ls", "ls a b c", "--repo /x --user ls a",
        "ls -q -q a --repo /x --repo /y", "ls a --generate-completion-script bash", "help",
    ])
    func parsedAlone(line: String) throws {
        let arguments = line.split(separator: " ").map(String.init)
        func told(_ parse: ([String]) throws -> Any) -> String {
            do { return "\(try parse(arguments))" } catch { return "\(error)" }
        }
        let names = try CommandWords.checked(arguments).arguments
        #expect(told { try ComposefsCommands.Cfsoci.command(of: $0) } == told { _ in try ComposefsCommands.Cfsoci.parseAmongAll(names) })
    }

    /// What the parser says, and what is said without it.
    @Test func release() throws {
        let release = try Cfsoci.succeed(["--version"])
        #expect(try Cfsoci.succeed(["--quiet", "--version"]).output == release.output)
        #expect(try Cfsoci.succeed(["images", "--version"]).output == release.output)
    }

    @Test func distances() {
        for (left, right, wanted) in [
            ("", "", 0), ("a", "", 1), ("", "abc", 3), ("pull", "pull", 0), ("pul", "pull", 1), ("plul", "pull", 1),
            ("kitten", "sitting", 3),
            ("umuont", "umount", 1), ("ca", "abc", 3),
        ] { #expect(CommandWords.distance(left, right) == wanted, "\(left) \(right)") }
    }

    // MARK: Errors as JSON

    private func event(_ result: CommandResult) throws -> JSONValue {
        #expect(result.output.isEmpty)
        let lines = result.error.split(separator: "\n")
        #expect(lines.count == 2 && lines.first == #"{"event":"schema","version":1}"#, "\(result.error)")
        return try JSONValue.parse(Array((lines.last ?? "").utf8))
    }

    @Test func errorEvents() throws {
        let (store, _) = try ContractStore.small()
        for (arguments, code) in [
            (["inspect", "nothing", "--json"], "no-such-image"), (["ls", "nothing", "--progress", "json"], "no-such-image"),
            (["fsck", "--json", "--repo", "/nowhere"], "no-such-repository"),
            (["df", "--progress=json", "--repo", "/nowhere"], "no-such-repository"),
            (["cat", "t", "none", "--progress", "json"], "failed"), (["rm", "nothing", "--json"], "no-such-image"),
            (["pull", "oci:\(store.layoutPath("t")):none", "--json"], "no-such-image"),
        ] {
            let result = arguments.contains("--repo") ? try Cfsoci.run(arguments) : try store.run(arguments)
            let event = try event(result)
            #expect(event["event"] == "error" && event["code"] == .string(code), "\(arguments): \(result.error)")
            #expect(event["message"]?.string?.isEmpty == false && event["status"] == .integer(Int64(result.status)))
        }
        let usage = try event(Cfsoci.run(["pull", "--progress", "json"]))
        #expect(usage["event"] == "error" && usage["code"] == "usage" && usage["status"] == 64)
        // Events go where progress goes, and then people are told, too.
        let path = store.folder.path + "/events"
        let told = try shell(
            #""$CFSOCI" inspect nothing --repo "$1" --progress-fd 3 3> "$2""#, [store.path, path])
        #expect(told.error.hasPrefix("cfsoci: error: no image \"nothing\""))
        #expect(try JSONValue.parse(Array(readFile(path).split(separator: 10).last ?? []))["code"] == "no-such-image")
        // What follows -- is no option.
        #expect(try store.run(["inspect", "--", "--json"]).error.hasPrefix("cfsoci: error: "))
    }

    /// Damage that `fsck` finds is a result, and its error an event besides.
    @Test func damageEvents() throws {
        let (store, _) = try ContractStore.small()
        let id = try #require(try store.object(with: try store.succeed(["cat", "t", "usr/big"]).output))
        try flip(store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))")
        let result = try store.run(["fsck", "--json"])
        #expect(result.status == 2)
        #expect(try result.json()["ok"] == false)
        let event = try JSONValue.parse(Array((result.error.split(separator: "\n").last ?? "null").utf8))
        #expect(event == .null || event["code"] == "damaged" && event["status"] == 2, "\(result.error)")
    }

    // MARK: Repositories that a command makes

    /// A pull that fails leaves nothing behind, not even the directories above the repository.
    @Test func failedPullsLeaveNoRepository() throws {
        let folder = try TemporaryFolder()
        _ = try LayoutBuilder.small().write(to: folder.path + "/layout")
        mkdir(folder.path + "/empty", 0o700)
        let before = fileList(folder.path)
        for source in [
            "oci:/nowhere", "oci:\(folder.path)/layout:none", "docker-archive:\(folder.path)/none.tar", "127.0.0.1:1/none:latest",
        ] {
            for place in ["repo", "a/b/repo", "empty", "empty/repo"] {
                let result = try Cfsoci.run(
                    ["pull", source, "--repo", folder.path + "/" + place, "--retries", "0", "--connect-timeout", "5"])
                #expect(result.status != 0)
                #expect(fileList(folder.path).filter { !before.contains($0) } == [], "\(source) \(place): \(result.error)")
            }
        }
        // Content that turns out to be damaged only after objects were stored.
        let blobs = folder.path + "/layout/blobs/sha256/"
        let largest = try #require(fileList(blobs).max { try! readFile(blobs + $0).count < readFile(blobs + $1).count })
        try flip(blobs + largest, fromEnd: 1)
        #expect(try Cfsoci.run(["pull", "oci:\(folder.path)/layout", "t", "--repo", folder.path + "/repo"]).status == 1)
        #expect(fileList(folder.path) == before)
        // `create-image` and `copy` as well.
        #expect(try Cfsoci.run(["create-image", folder.path + "/none", "--repo", folder.path + "/repo"]).status == 1)
        #expect(fileList(folder.path) == before)
        try Cfsoci.succeed(["init", folder.path + "/other", "--insecure"])
        #expect(try Cfsoci.run(["copy", "none", "--from", folder.path + "/other", "--repo", folder.path + "/repo"]).status != 0)
        #expect(fileList(folder.path).filter { !before.contains($0) && !$0.hasPrefix("other") } == [])
    }

    /// One that existed stays as it was.
    @Test func failedPullsLeaveOtherRepositories() throws {
        let store = try ContractStore()
        let before = store.files
        #expect(try store.run(["pull", "oci:/nowhere"]).status == 1)
        #expect(store.files == before)
        try store.succeed(["fsck"])
    }

    @Test func directoriesWithOtherFiles() throws {
        let folder = try TemporaryFolder()
        _ = try LayoutBuilder.small().write(to: folder.path + "/layout")
        let home = folder.path + "/home"
        mkdir(home, 0o755)
        try writeFile(home + "/letter", [1])
        for arguments in [
            ["init", home, "--insecure"], ["init", "--repo", home, "--insecure"],
            ["pull", "oci:\(folder.path)/layout", "t", "--repo", home],
            ["create-image", home, "--repo", home],
        ] {
            let message = expectRefusal(try Cfsoci.run(arguments))
            #expect(message.hasPrefix("\(home): the directory is not empty and no repository: it has \"letter\"; "), "\(message)")
            #expect(message.contains("--force"))
            #expect(fileList(home) == ["letter"])
        }
        try Cfsoci.succeed(["init", home, "--insecure", "--force"])
        #expect(try readFile(home + "/letter") == [1])
        try Cfsoci.succeed(["pull", "oci:\(folder.path)/layout", "t", "--repo", home])
        try Cfsoci.succeed(["init", home, "--insecure"])
        // What an interrupted command leaves, and a new file system, are no obstacle.
        for name in ["lost+found", ".staging", "streams"] {
            let fresh = folder.path + "/fresh-" + name
            mkdir(fresh, 0o755)
            mkdir(fresh + "/" + name, 0o700)
            try Cfsoci.succeed(["init", fresh, "--insecure"])
        }
    }

    private func flip(_ path: String, fromEnd: Int? = nil) throws {
        var bytes = try readFile(path)
        bytes[fromEnd.map { bytes.count - $0 } ?? bytes.count / 2] ^= 1
        unlink(path)
        try writeFile(path, bytes)
    }
}

/// The promised exit statuses.
@Suite struct ExitStatusTests {
    @Test func ofImagesThatDoNotExist() throws {
        let (store, _) = try ContractStore.small()
        for command in [
            ["inspect", "none"], ["tag", "none", "x"], ["untag", "none"], ["rm", "none"], ["ls", "none"], ["cat", "none", "x"],
            ["dump", "none"],
            ["compute-id", "none"], ["history", "none"], ["diff", "t", "none"], ["export", "none", "oci:" + store.folder.path + "/out"],
            ["push", "none", "127.0.0.1:1/x"], ["referrers", "list", "none"], ["boot", "image", "none"], ["boot", "karg", "none"],
            ["image-objects", String(repeating: "0", count: 128)], ["mount", "none", store.folder.path], ["fsck", "none"],
            ["pull", "oci:\(store.layoutPath("t")):none"], ["pull", "oci:\(store.layoutPath("t")):@7"],
            ["pull", "127.0.0.1:1/none:latest", "--policy", "never"],
        ] {
            let result = try store.run(command)
            #expect(result.status == 3, "\(command): \(result.error)")
        }
        // Something else that does not exist.
        for command in [
            ["cat", "t", "none"], ["ls", "t", "none"], ["layer", ContentDigest.of([]).description], ["stream", "cat", "none"],
            ["pull", "oci:/nowhere"], ["export", "t", "oci:/nowhere/none/x"],
        ] { #expect(try store.run(command).status == 1, "\(command)") }
    }

    /// A missing layer does not make the image unknown.
    @Test func ofMissingLayers() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("t")
        let builder = LayoutBuilder.small()
        try builder.write(to: layout)
        unlink(layout + "/blobs/sha256/" + ContentDigest.of(builder.layers[1]).hex)
        #expect(try store.run(["pull", "oci:" + layout, "t"]).status == 1)
    }

    @Test func ofRegistries() throws {
        let store = try ContractStore()
        let quick = ["--retries", "0", "--connect-timeout", "5"]
        // Nothing listens there.
        #expect(try store.run(["pull", "127.0.0.1:1/none:latest"] + quick).status == 5)
        let json = try store.run(["pull", "127.0.0.1:1/none:latest", "--json"] + quick)
        #expect(try JSONValue.parse(Array((json.error.split(separator: "\n").last ?? "").utf8))["code"] == "unreachable")
        let blocking = store.folder.path + "/registries.conf"
        try writeFile(blocking, Array("[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = true\n".utf8))
        #expect(try store.run(["pull", "127.0.0.1:1/none:latest", "--registries-conf", blocking] + quick).status == 4)
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func ofFullFileSystems() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.large(layers: 1, filesPerLayer: 300).write(to: folder.path + "/layout")
        let mount = folder.path + "/mount"
        mkdir(mount, 0o755)
        guard try launch("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]).status == 0 else { return }
        defer { _ = try? launch("umount", [mount]) }
        for options in [[], ["--no-space-check"]] {
            let result = try Cfsoci.run(["pull", "oci:" + folder.path + "/layout", "t", "--repo", mount + "/repo"] + options)
            #expect(result.status == 7, "\(options): \(result.error)")
        }
    }
}

/// Help, examples and completion.
@Suite struct HelpTests {
    /// Every command has an example, in the table or in its description; every example is a command line that parses.
    @Test func everyCommandHasAnExample() throws {
        for (name, _) in ConfinementTable.all {
            let help = try Cfsoci.succeed(name.split(separator: " ").map(String.init) + ["--help"]).text
            let lines = help.replacing("\n", with: " ").split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
            #expect(lines.contains("Example: cfsoci \(name)") || lines.contains("EXAMPLES: cfsoci \(name)"), "\(help)")
        }
        for (name, examples) in Examples.all {
            #expect(ConfinementTable.all.contains { $0.name == name }, "\(name)")
            for example in examples {
                #expect(example.hasPrefix("cfsoci " + name), "\(example)")
                // Without redirections, which are the shell's.
                let words = example.prefix { $0 != "<" && $0 != ">" }.split(separator: " ").dropFirst().map(String.init)
                #expect(throws: Never.self, "\(example)") { _ = try ComposefsCommands.Cfsoci.command(of: words) }
            }
        }
    }

    /// The options of all commands are explained once, and named everywhere.
    @Test func globalOptionsAreNamedInOneLine() throws {
        let root = try Cfsoci.succeed(["--help"]).text
        for name in [
            "--repo", "--user", "--system", "--require-verity", "--trust-owner", "--no-sandbox", "--quiet", "--verbose", "--progress-fd",
        ] {
            #expect(root.split(separator: "\n").contains { $0.hasPrefix("  -") && $0.contains(name) }, "\(name)")
        }
        for (name, _) in ConfinementTable.all {
            let help = try Cfsoci.succeed(["help"] + name.split(separator: " ").map(String.init)).text
            let explained = help.split(separator: "\n").filter { $0.hasPrefix("  -") && !$0.hasPrefix("  --repo, ") }
            #expect(!explained.contains { $0.contains("--progress") || $0.contains("--repo <") }, "\(help)")
            #expect(help.contains("\nGLOBAL OPTIONS:\n  --repo, "), "\(name)")
            // Those of the command are all there.
            #expect(help.contains("  -h, --help "))
        }
        // What is longer than a line is removed as a whole.
        let images = try Cfsoci.succeed(["images", "--help"]).text
        #expect(!images.contains("CFSOCI_") && !images.contains("seccomp") && images.contains("reference=PATTERN"))
        #expect(try Cfsoci.succeed(["login", "--help"]).text.contains("-u, --username"))
    }

    @Test func completesNamesAndPaths() throws {
        let (store, image) = try ContractStore.small()
        try store.succeed(["tag", "t", "team/app:v1"])
        for arguments in [["cfsoci", "inspect", "--repo", store.path, ""], ["cfsoci", "--repo", store.path, "inspect", ""]] {
            let result = try Cfsoci.succeed(["---completion", "inspect", "--", "positional@0", "\(arguments.count - 1)", "0"] + arguments)
            #expect(
                Set(result.lines) == ["t", "team/app:v1"], "\(result.text)")
        }
        let layers = try Cfsoci.succeed(
            ["---completion", "layer", "--", "positional@0", "4", "0", "cfsoci", "layer", "--repo", store.path, ""])
        #expect(Set(layers.lines) == Set(image.diffIDs))
        func sources(_ prefix: String) throws -> [String] {
            try Cfsoci.succeed(
                ["---completion", "pull", "--", "positional@0", "2", "\(prefix.count)", "cfsoci", "pull", prefix]).lines
        }
        #expect(try sources("").contains("oci-archive:") && sources("doc") == ["docker://", "docker-archive:"])
        #expect(try sources("oci:\(store.folder.path)/lay") == ["oci:\(store.layoutPath("t"))/"])
        // No repository, no offers, no error.
        let none = try Cfsoci.run(
            ["---completion", "inspect", "--", "positional@0", "4", "0", "cfsoci", "inspect", "--repo", "/nowhere", ""])
        #expect(none.status == 0 && none.lines.allSatisfy(\.isEmpty) && none.error.isEmpty)
    }

    @Test(arguments: ["bash", "zsh", "fish"])
    func completionScripts(shell: String) throws {
        let script = try Cfsoci.succeed(["--generate-completion-script", shell]).output
        guard hasProgram(shell) else { return }
        let folder = try TemporaryFolder()
        try writeFile(folder.path + "/script", script)
        #expect(try launch(shell, ["-n", folder.path + "/script"]).status == 0)
    }
}
