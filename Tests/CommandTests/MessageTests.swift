import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsCommandSupport

/// What `-v` and `-vv` tell, and how messages reach the journal.
@Suite struct MessageTests {
    /// A registry that serves `team/app:latest` to the user `me` with the password `secret`, and a layout that it serves.
    private func privateRegistry(_ layout: String) throws -> (server: ScriptedServer, manifest: String) {
        let index = try JSONValue.parse(readFile(layout + "/index.json"))
        let digest = try #require(index["manifests"]?[0]?["digest"]?.string)
        let type = try #require(index["manifests"]?[0]?["mediaType"]?.string)
        let server = ScriptedServer { request in
            guard request.headers["authorization"] == "Basic bWU6c2VjcmV0" else {
                return [.reply(401, ["WWW-Authenticate": "Basic realm=\"x\""], [])]
            }
            let path = request.path.hasSuffix("/latest") ? "/" + digest : request.path
            let hex = path.split(separator: ":").last.map(String.init) ?? ""
            guard let bytes = try? readFile(layout + "/blobs/sha256/" + hex) else { return [.reply(404, [:], [])] }
            return [.reply(200, request.path.contains("/manifests/") ? ["Content-Type": type] : [:], bytes)]
        }
        return (server, digest)
    }

    /// Which registry, mirror and credentials are used, and each request: a mirror that does not have the image, and a registry that asks for
    /// a password.
    @Test func verbosity() throws {
        let folder = try TemporaryFolder()
        _ = try LayoutBuilder.small().write(to: folder.path + "/layout")
        let (registry, _) = try privateRegistry(folder.path + "/layout")
        defer { registry.stop() }
        let mirror = ScriptedServer { _ in [.reply(404, [:], [])] }
        defer { mirror.stop() }
        let host = "127.0.0.1:\(registry.port)"
        let other = "127.0.0.1:\(mirror.port)"
        try writeFile(
            folder.path + "/registries.conf",
            Array("[[registry]]\nlocation = \"\(host)\"\n[[registry.mirror]]\nlocation = \"\(other)\"\n".utf8))
        try writeFile(folder.path + "/auth.json", Array(#"{"auths":{"\#(host)":{"auth":"bWU6c2VjcmV0"}}}"#.utf8))
        func pull(_ options: [String]) throws -> [Substring] {
            let result = try Cfsoci.run(
                [
                    "pull", host + "/team/app", "--repo", folder.path + "/repo", "--registries-conf", folder.path + "/registries.conf",
                    "--authfile", folder.path + "/auth.json", "--policy", "always",
                ] + options)
            #expect(result.status == 0, "\(result.error)")
            #expect(!result.error.contains("secret") && !result.error.contains("bWU6"))
            return result.error.split(separator: "\n")
        }
        let endpoint = "\(host)/team/app:latest: uses the registry, \(host)/team/app"
        let credentials = "\(host): uses the credentials in \(folder.path)/auth.json"
        for options in [["-v"], ["--verbose"]] {
            let lines = try pull(options)
            #expect(lines.filter { $0 == endpoint }.count == 1 && lines.filter { $0 == credentials }.count == 1, "\(lines)")
            #expect(!lines.contains { $0.hasPrefix("GET ") })
        }
        for options in [["-vv"], ["-v", "-v"], ["--verbose", "--verbose"]] {
            let lines = try pull(options)
            #expect(lines.contains(Substring(endpoint)) && lines.contains(Substring(credentials)))
            let requests = lines.filter { $0.hasPrefix("GET ") || $0.hasPrefix("HEAD ") }
            #expect(requests.contains { $0.hasPrefix("GET http://\(other)/v2/team/app/manifests/latest: status 404 after ") }, "\(lines)")
            #expect(requests.contains { $0.hasPrefix("GET http://\(host)/v2/team/app/manifests/latest: status 401 after ") }, "\(lines)")
            #expect(requests.contains { $0.hasPrefix("GET http://\(host)/v2/team/app/manifests/latest: status 200 after ") }, "\(lines)")
        }
        // Before the command's name the options mean the same, and with events they are notes.
        let before = try Cfsoci.run(["-vv", "info", "--repo", folder.path + "/repo"])
        #expect(before.status == 0 && before.error.hasPrefix("sandbox: "))
        let events = try pull(["-vv", "--progress", "json"]).map { try JSONValue.parse(Array($0.utf8)) }
        #expect(events.contains { $0["event"] == "note" && $0["message"] == .string(credentials) })
        #expect(try pull([]).isEmpty)
        #expect(try Cfsoci.run(["images", "-q", "-v", "--repo", folder.path + "/repo"]).status == 64)
    }

    @Test func mirrorIsNamed() throws {
        let folder = try TemporaryFolder()
        _ = try LayoutBuilder.small().write(to: folder.path + "/layout")
        let server = try LayoutServer(layout: folder.path + "/layout")
        defer { server.stop() }
        try writeFile(
            folder.path + "/registries.conf",
            Array("[[registry]]\nlocation = \"registry.invalid\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:\(server.port)\"\n".utf8))
        let pulled = try Cfsoci.run([
            "pull", "registry.invalid/team/app", "--repo", folder.path + "/repo", "--registries-conf", folder.path + "/registries.conf",
            "-v",
        ])
        #expect(pulled.status == 0)
        let wanted = "registry.invalid/team/app:latest: uses the mirror 127.0.0.1:\(server.port)/team/app"
        #expect(pulled.error.split(separator: "\n").contains(Substring(wanted)), "\(pulled.error)")
    }

    // MARK: Journal

    /// The script's standard error is the file `$1`; `$stream` names it as the journal does.
    private func inJournal(_ command: String, _ arguments: [String] = []) throws -> [Substring] {
        let folder = try TemporaryFolder()
        let path = folder.path + "/journal"
        _ = try shell(
            #"exec 2> "$1"; shift; export stream=$(stat --dereference --format %d:%i /proc/self/fd/2); "# + command, [path] + arguments)
        return String(decoding: try readFile(path), as: UTF8.self).split(separator: "\n")
    }

    @Test func priorities() throws {
        let (store, _) = try ContractStore.small()
        let marked = try inJournal(#"JOURNAL_STREAM=$stream "$CFSOCI" inspect nothing --repo "$1" || true"#, [store.path])
        #expect(
            marked.first == #"<3>cfsoci: error: no image "nothing""#
                || marked.first?.hasPrefix("<3>cfsoci: error: no image \"nothing\"") == true)
        #expect(
            !marked.isEmpty && marked.allSatisfy { $0.hasPrefix("<3>cfsoci: error: ") || $0.hasPrefix("<6>cfsoci: hint: ") }, "\(marked)")
        // Usage errors have several lines, and every line is an entry.
        let usage = try inJournal(#"JOURNAL_STREAM=$stream "$CFSOCI" pull || true"#)
        #expect(usage.count > 1 && usage.allSatisfy { $0.hasPrefix("<3>") }, "\(usage)")
        let helper = try inJournal(#"JOURNAL_STREAM=$stream "$CFSOCI" mount.composefs -o nonsense x y || true"#)
        #expect(helper.count == 1 && helper[0].hasPrefix("<3>mount.composefs: "), "\(helper)")
        // What was done is information, and a fault of another endpoint a warning.
        let noted = try inJournal(#"JOURNAL_STREAM=$stream "$CFSOCI" info --repo "$1" -v > /dev/null"#, [store.path])
        #expect(noted.count == 1 && noted[0].hasPrefix("<6>sandbox: "), "\(noted)")
        let warned = try inJournal(
            #"JOURNAL_STREAM=$stream "$CFSOCI" pull "$2" "$3" --platform linux/s390x --repo "$1" > /dev/null"#,
            [store.path, "oci:" + store.layoutPath("t"), "other"])
        #expect(warned.contains { $0.hasPrefix("<4>cfsoci: warning: the image is for ") }, "\(warned)")
        // Events are for programs, which read what was written.
        let events = try inJournal(#"JOURNAL_STREAM=$stream "$CFSOCI" inspect nothing --json --repo "$1" || true"#, [store.path])
        for event in events { #expect(throws: Never.self) { _ = try JSONValue.parse(Array(event.utf8)) } }
    }

    /// The variable alone says nothing: a shell in a service inherits it.
    @Test(arguments: ["", "JOURNAL_STREAM=", "JOURNAL_STREAM=8:12345", "JOURNAL_STREAM=nonsense", "JOURNAL_STREAM=${stream}0"])
    func otherStreams(variable: String) throws {
        let lines = try inJournal(variable + #" "$CFSOCI" inspect nothing --repo /nowhere || true"#)
        #expect(!lines.isEmpty && lines.allSatisfy { $0.hasPrefix("cfsoci: ") }, "\(lines)")
    }

    @Test func marks() {
        #expect(Journal.marked("a\n\nb\n", .warning) == "<4>a\n\n<4>b\n")
        #expect(Journal.names("8:9", device: 8, inode: 9) && !Journal.names("8:9 ", device: 8, inode: 9))
        #expect(!Journal.names("08:9", device: 8, inode: 9) && !Journal.names("", device: 0, inode: 0))
    }

    // MARK: Events

    @Test func firstLineIsTheSchema() throws {
        let (store, _) = try ContractStore.small()
        let first = #"{"event":"schema","version":1}"#
        for arguments in [["inspect", "nothing", "--json"], ["pull", "--progress", "json"], ["fsck", "--progress", "json"]] {
            let lines = try store.run(arguments).error.split(separator: "\n")
            #expect(lines.first == Substring(first) && lines.count > 1 && lines.count { $0 == first } == 1, "\(arguments): \(lines)")
        }
        // Nothing to tell, no line.
        #expect(try store.succeed(["images", "--json"]).error.isEmpty)
    }

    // MARK: Completion and usage

    /// Every argument that names an image, a directory or a file is completed, in every command.
    @Test func everyNameIsCompleted() throws {
        let dump = try Cfsoci.succeed(["--experimental-dump-help"]).json()
        var missing: [String] = []
        var count = 0
        func walk(_ command: JSONValue, _ path: String) {
            for argument in command["arguments"]?.array ?? [] {
                let name = argument["names"]?[0]?["name"]?.string ?? ""
                let value = argument["valueName"]?.string ?? ""
                let isPositional = argument["kind"] == "positional"
                let wants =
                    isPositional && ["image", "images", "deployment", "directory", "file"].contains(value)
                    || !isPositional && ["dir", "file", "path"].contains(value)
                // A directory of the boot partition, which is another one.
                guard wants, name != "subdir" else { continue }
                count += 1
                if argument["completionKind"]?.object == nil { missing.append("\(path) \(name) \(value)") }
            }
            for below in command["subcommands"]?.array ?? [] { walk(below, path + " " + (below["commandName"]?.string ?? "")) }
        }
        walk(try #require(dump["command"]), "")
        #expect(missing.isEmpty && count > 60)
    }

    @Test func completesBootAndDisk() throws {
        let (store, _) = try ContractStore.small()
        for (command, index) in [("boot image", 3), ("boot karg", 3), ("boot prepare", 3), ("disk create", 3)] {
            let words = ["cfsoci"] + command.split(separator: " ").map(String.init) + ["--repo", store.path, ""]
            let offers = try Cfsoci.succeed(
                ["---completion"] + command.split(separator: " ").map(String.init) + ["--", "positional@0", "\(index + 2)", "0"] + words)
            #expect(offers.lines == ["t"], "\(command): \(offers.text)\(offers.error)")
        }
        // The images of the other repository.
        for option in [["--from", store.path], ["--from=" + store.path], ["--from", "=", store.path]] {
            let words = ["cfsoci", "copy"] + option + [""]
            let offers = try Cfsoci.succeed(["---completion", "copy", "--", "positional@0", "\(words.count - 1)", "0"] + words)
            #expect(offers.lines == ["t"], "\(option): \(offers.text)")
        }
        let none = try Cfsoci.succeed(["---completion", "copy", "--", "positional@0", "2", "0", "cfsoci", "copy", ""])
        let text = none.text
        #expect(text.split(separator: "\n").isEmpty, "\(text)")
    }

    /// Names of other programs lead to the usage of the command that they mean.
    @Test(arguments: [("rmi", "rm"), ("unmount", "umount")])
    func usageOfAcceptedNames(name: String, command: String) throws {
        for arguments in [[name], [name, "-q"], ["--repo", "/x", name]] {
            let result = try Cfsoci.run(arguments)
            #expect(result.status == 64 && result.output.isEmpty)
            #expect(
                result.error.hasPrefix("cfsoci: error: Missing expected argument") && result.error.contains("\nUsage: cfsoci \(command) "),
                "\(result.error)")
            #expect(result.error.contains("See 'cfsoci \(command) --help'"), "\(result.error)")
        }
    }
}
