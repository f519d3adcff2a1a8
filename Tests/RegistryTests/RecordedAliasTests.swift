import ComposefsBytes
import ComposefsOCIModel
import ComposefsTestSupport
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

/// The registry that a user chooses for a short name is recorded in the file of the container tools.
@Suite struct RecordedAliasTests {
    private let image = TestImage.shared

    private struct Asked {
        var questions = 0
        var warnings: [String] = []
        var found: String?
    }

    /// Searches two registries for `team/app:v1`, and chooses the second.
    private func locate(_ root: String, user: UInt32 = 0, _ hosts: [String], _ adjust: (inout RegistryOptions) -> Void = { _ in }) throws
        -> Asked
    {
        try writeFile(
            root + "/registries.conf",
            "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\(hosts.map { "\"\($0)\"" }.joined(separator: ", "))]")
        let box = Box()
        var options = RegistryOptions()
        options.registriesConfiguration = ByteString(root + "/registries.conf")
        options.usesStoredCredentials = false
        options.chooseRegistry = { candidates in
            box.state.withLock { $0.questions += 1 }
            return candidates.last
        }
        options.warn = { message in box.state.withLock { $0.warnings.append(message) } }
        adjust(&options)
        let client = try RegistryClient(
            options, environment: Environment(["HOME": root + "/home", "XDG_CACHE_HOME": root + "/cache"], systemRoot: root, userID: user))
        let found = try? client.locate(try RegistryReference(parsing: "team/app:v1"))
        return box.state.withLock { state in
            state.found = found?.reference.canonical
            return state
        }
    }

    private final class Box: Sendable {
        let state = Mutex(Asked())
    }

    private func withServers(_ body: (String, [String]) throws -> Void) throws {
        let servers = (0..<2).map { _ in ScriptedServer { [image] in image.answer($0) } }
        defer { for server in servers { server.stop() } }
        try withTemporaryDirectory { root in
            try makeDirectory(root + "/home")
            try body(root, servers.map(\.host))
        }
    }

    private func text(_ path: String) throws -> String? {
        try readSmallFile(ByteString(path), limit: 1 << 20).map { String(decoding: $0, as: UTF8.self) }
    }

    private func mode(_ path: String) -> mode_t {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
    }

    @Test(arguments: [(UInt32(0), "/var/cache/containers"), (1000, "/cache/containers")])
    func anAnswerIsRemembered(user: UInt32, folder: String) throws {
        try withServers { root, hosts in
            let first = try locate(root, user: user, hosts)
            #expect(first.questions == 1 && first.found == "\(hosts[1])/team/app:v1" && first.warnings == [])
            let path = root + folder + "/short-name-aliases.conf"
            // Without the tag: the alias is for the name.
            #expect(try text(path) == "[aliases]\n  \"team/app\" = \"\(hosts[1])/team/app\"\n")
            #expect(mode(path) == 0o600)
            #expect(mode(root + folder) == 0o700)
            let second = try locate(root, user: user, hosts)
            #expect(second.questions == 0 && second.found == first.found)
        }
    }

    @Test func otherEntriesStay() throws {
        try withServers { root, hosts in
            for path in ["/var", "/var/cache", "/var/cache/containers"] { try makeDirectory(root + path) }
            let path = root + "/var/cache/containers/short-name-aliases.conf"
            try writeFile(path, "[aliases]\n  fedora = \"registry.fedoraproject.org/fedora\"\n  \"nothing\" = \"\"\n", mode: 0o644)
            _ = chmod(path, 0o644)
            #expect(try locate(root, hosts).questions == 1)
            #expect(
                try text(path)
                    == "[aliases]\n  \"fedora\" = \"registry.fedoraproject.org/fedora\"\n  \"nothing\" = \"\"\n"
                    + "  \"team/app\" = \"\(hosts[1])/team/app\"\n")
            #expect(mode(path) == 0o644)
            #expect(try locate(root, hosts).questions == 0)
        }
    }

    /// A choice that led to no image is asked for again, and so is one that must not be recorded.
    @Test func answersThatAreNotRecorded() throws {
        try withServers { root, hosts throws in
            let path = root + "/var/cache/containers/short-name-aliases.conf"
            let missing = ScriptedServer { _ in [.reply(404)] }
            defer { missing.stop() }
            #expect(try locate(root, [hosts[0], missing.host]).found == nil)
            #expect(try text(path) == nil)
            #expect(try locate(root, hosts) { $0.recordsChoices = false }.found != nil)
            #expect(try text(path) == nil)
            // The user was not asked.
            #expect(try locate(root, [hosts[1]]).questions == 0)
            #expect(try text(path) == nil)
        }
    }

    /// The pull succeeds all the same.
    @Test(arguments: [false, true]) func whatCannotBeRecordedIsTold(isDamaged: Bool) throws {
        try withServers { root, hosts in
            let path = root + "/var/cache/containers/short-name-aliases.conf"
            try makeDirectory(root + "/var")
            if isDamaged {
                for path in ["/var/cache", "/var/cache/containers"] { try makeDirectory(root + path) }
                try writeFile(path, "[aliases\n")
            } else {
                try writeFile(root + "/var/cache", "")
            }
            let asked = try locate(root, hosts)
            #expect(asked.found == "\(hosts[1])/team/app:v1")
            #expect(asked.warnings.count == 1)
            #expect(
                asked.warnings.first?.hasPrefix(
                    "cannot record the registry chosen for team/app, which will be asked for again: \(root)/var") == true)
            // A damaged file of other tools is not replaced.
            if isDamaged { #expect(try text(path) == "[aliases\n") }
        }
    }
}
