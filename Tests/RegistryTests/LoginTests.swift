import ComposefsBytes
import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsRegistry

@Suite struct LoginTests {
    private func store(_ path: String, _ environment: [String: String] = [:]) -> LoginStore {
        var options = RegistryOptions()
        options.authFile = ByteString(path)
        return LoginStore(options, Environment(["HOME": "/nonexistent"].merging(environment) { $1 }, systemRoot: "/nonexistent"))
    }

    private func target(_ text: String) throws -> LoginTarget { try LoginTarget(parsing: text) }

    private func read(_ path: String) throws -> JSONValue {
        try JSONValue.parse(try #require(try readSmallFile(ByteString(path), limit: 1 << 20)))
    }

    private func mode(_ path: String) -> mode_t {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode : 0
    }

    @Test(arguments: [
        ("quay.io", "quay.io"), ("Quay.IO/", "quay.io"), ("https://quay.io", "quay.io"), ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"), ("quay.io/team/app", "quay.io/team/app"), ("https://index.docker.io/v1/", "docker.io"),
        ("host", "host"),
        ("http://127.0.0.1:80/v2/", "127.0.0.1:80"),
    ])
    func targets(text: String, key: String) throws { #expect(try target(text).description == key) }

    @Test(arguments: ["", "/", "https://", "a b", "user@quay.io", "quay.io/Team", "quay.io/a:tag", "quay.io//a", "a?b", "quay.io/../x"])
    func noTargets(text: String) { #expect(registryError { _ = try target(text) }?.kind == .invalidRequest) }

    @Test func everythingElseStays() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/new/sub/auth.json"
            #expect(try store(path).user(for: try target("a.example")) == nil)
            #expect(try store(path).save(user: "me", password: "a:b", for: try target("a.example")) == path)
            #expect(mode(path) == S_IFREG | 0o600)
            #expect(mode(directory + "/new") == S_IFDIR | 0o700)
            #expect(try read(path) == ["auths": ["a.example": ["auth": "bWU6YTpi"]]])

            let before =
                #"{"HttpHeaders":{"X":1.5},"auths":{"b.example":{"auth":"eDp5","email":"e"},"a.example":{"identitytoken":"t"}},"#
                + #""credHelpers":{"c.example":"none"},"z":[1,null]}"#
            try writeFile(path, before, mode: 0o644)
            _ = try store(path).save(user: "me", password: "pw", for: try target("a.example"))
            _ = try store(path).save(user: "you", password: "", for: try target("a.example/team"))
            let after = try read(path)
            #expect(after["HttpHeaders"] == ["X": .double(1.5)])
            #expect(after["auths"]?["b.example"] == ["auth": "eDp5", "email": "e"])
            #expect(after["auths"]?["a.example"] == ["auth": "bWU6cHc="])
            #expect(after["auths"]?["a.example/team"] == ["auth": "eW91Og=="])
            #expect(after.object?.keys == ["HttpHeaders", "auths", "credHelpers", "z"])
            // Other users cannot read it any more.
            #expect(mode(path) == S_IFREG | 0o600)
            #expect(try store(path).user(for: try target("a.example")) == "me")
            #expect(try store(path).user(for: try target("a.example/team/app")) == "you")

            #expect(try store(path).remove(try target("a.example")))
            #expect(try !store(path).remove(try target("a.example")))
            #expect(try store(path).user(for: try target("a.example/team/app")) == "you")
            // If the helper fails, nothing is stored in the file.
            #expect(
                registryError { _ = try store(path).removeAll() }?.description.contains("docker-credential-none is not in PATH") == true)
            #expect(
                try read(path) == ["HttpHeaders": ["X": .double(1.5)], "auths": [:], "credHelpers": ["c.example": "none"], "z": [1, nil]])
            // No temporary file remains.
            #expect(try entries(directory + "/new/sub") == ["auth.json"])
        }
    }

    /// Concurrent logins, including the first one, lose nothing.
    @Test func manyAtOnce() throws {
        try withTemporaryDirectory { directory in
            for round in 0..<5 {
                let path = "\(directory)/new\(round)/auth.json"
                let store = store(path)
                let targets = try (0..<8).map { try target("host\($0).example") }
                let pool = WorkerPool(threads: targets.count)
                for target in targets { pool.submit { _ = try? store.save(user: "me", password: "pw", for: target) } }
                pool.shutdown()
                #expect(try read(path)["auths"]?.object?.keys.count == 8)
                let leaving = WorkerPool(threads: 4)
                for target in targets.prefix(4) { leaving.submit { _ = try? store.remove(target) } }
                leaving.shutdown()
                #expect(try read(path)["auths"]?.object?.keys.count == 4)
            }
        }
    }

    private func entries(_ path: String) throws -> [String] {
        let directory = try #require(opendir(path))
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    @Test func oldNamesOfDockerHubGoToo() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/config.json"
            try writeFile(path, #"{"auths":{"https://index.docker.io/v1/":{"auth":"eDp5"},"docker.io/team":{"auth":"eDp5"}}}"#)
            #expect(try store(path).user(for: try target("docker.io")) == "x")
            #expect(try store(path).remove(try target("docker.io")))
            #expect(try read(path)["auths"]?.object?.keys == ["docker.io/team"])
        }
    }

    @Test func linksStay() throws {
        try withTemporaryDirectory { directory in
            try makeDirectory(directory + "/real")
            try writeFile(directory + "/real/auth.json", "{}")
            #expect(symlink("real/auth.json", directory + "/second") == 0)
            #expect(symlink(directory + "/second", directory + "/first") == 0)
            _ = try store(directory + "/first").save(user: "me", password: "pw", for: try target("a.example"))
            #expect(mode(directory + "/first") & S_IFMT == S_IFLNK)
            #expect(mode(directory + "/second") & S_IFMT == S_IFLNK)
            #expect(try read(directory + "/real/auth.json")["auths"]?.object?.keys == ["a.example"])
            // A dangling link: its target is created.
            #expect(symlink("later/auth.json", directory + "/third") == 0)
            _ = try store(directory + "/third").save(user: "me", password: "pw", for: try target("a.example"))
            #expect(mode(directory + "/later/auth.json") == S_IFREG | 0o600)
            #expect(symlink("loop", directory + "/loop") == 0)
            for path in ["/loop", "/real"] {
                #expect(
                    registryError { _ = try store(directory + path).save(user: "me", password: "pw", for: try target("a.example")) }?.kind
                        == .credentials)
            }
            // A device or pipe is not replaced.
            #expect(mkfifo(directory + "/pipe", 0o600) == 0)
            try writeFile(directory + "/real/auth.json", "[]")
            #expect(
                registryError { _ = try store(directory + "/first").removeAll() }?.description.contains(
                    "contains an array, not a JSON object")
                    == true)
        }
    }

    @Test func damagedFilesAreNotOverwritten() throws {
        try withTemporaryDirectory { directory in
            try writeFile(directory + "/auth.json", #"{"auths": "#)
            let error = registryError {
                _ = try store(directory + "/auth.json").save(user: "me", password: "pw", for: try target("a.example"))
            }
            #expect(error?.kind == .credentials)
            #expect(try readSmallFile(ByteString(directory + "/auth.json"), limit: 100) == Array(#"{"auths": "#.utf8))
        }
    }

    @Test(arguments: [("a:b", "pw"), ("", "pw"), ("me", "a\0b"), ("a\u{0}b", "pw"), ("a\nb", "pw")])
    func whatNoFileCanHold(user: String, password: String) throws {
        let error = registryError {
            _ = try store("/nonexistent/auth.json").save(user: user, password: password, for: try target("a.example"))
        }
        #expect(error?.kind == .credentials)
    }

    /// Google's registries use a JSON key as password: several lines, and more than a small pipe holds.
    @Test func passwordsOfSeveralLines() throws {
        try withTemporaryDirectory { directory in
            let key = "{\n  \"private_key\": \"" + String(repeating: "k", count: 6000) + "\"\n}\n"
            let path = directory + "/auth.json"
            _ = try store(path).save(user: "_json_key", password: key, for: try target("gcr.example"))
            var options = RegistryOptions()
            options.authFile = ByteString(path)
            let found = try CredentialStore(options, Environment([:])).find(for: RemoteRepository(domain: "gcr.example", name: "a"))
            #expect(found?.credentials == .password(user: "_json_key", password: key))

            try writeFile(directory + "/docker-credential-take", "#!/bin/sh\nexec cat > \(directory)/taken\n", mode: 0o700)
            try writeFile(path, #"{"credsStore":"take"}"#)
            _ = try store(path, ["PATH": directory + ":/usr/bin:/bin"])
                .save(user: "_json_key", password: key, for: try target("gcr.example"))
            #expect(try read(directory + "/taken")["Secret"] == .string(key))
            let error = registryError {
                _ = try store(path, ["PATH": directory + ":/usr/bin:/bin"])
                    .save(user: "me", password: String(repeating: "p", count: 1 << 20), for: try target("gcr.example"))
            }
            #expect(error?.description.hasPrefix("docker-credential-take: ") == true)
            #expect(error?.description.contains("bytes is too large; the limit is 65536") == true)
        }
    }

    @Test func helpersKeepWhatIsTheirs() throws {
        try withTemporaryDirectory { directory in
            // A helper that stores each server's entry in a file.
            try writeFile(
                directory + "/docker-credential-files",
                """
                #!/bin/sh
                cd \(directory) || exit 1
                case $1 in
                store) cat > input; name=$(sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' input | tr -c 'a-z0-9.\\n' _); mv input "store-$name" ;;
                get) name=$(tr -c 'a-z0-9.\\n' _); test -f "store-$name" || { echo "credentials not found in native keychain"; exit 1; }; cat "store-$name" ;;
                erase) name=$(tr -c 'a-z0-9.\\n' _); rm "store-$name" ;;
                esac
                """, mode: 0o700)
            let path = directory + "/auth.json"
            let text = #"{"credHelpers":{"a.example":"files"},"credsStore":"files"}"#
            try writeFile(path, text)
            let store = store(path, ["PATH": directory + ":/usr/bin:/bin"])
            #expect(try store.save(user: "me", password: "secret", for: try target("a.example")) == "docker-credential-files")
            #expect(try store.save(user: "hub", password: "secret", for: try target("docker.io")) == "docker-credential-files")
            // Neither the secret nor anything else was written to the file.
            #expect(try readSmallFile(ByteString(path), limit: 1000) == Array(text.utf8))
            #expect(try entries(directory).filter { $0.hasPrefix("store-") } == ["store-a.example", "store-https___index.docker.io_v1_"])
            #expect(try store.user(for: try target("a.example")) == "me")
            #expect(try store.user(for: try target("docker.io")) == "hub")
            #expect(try store.remove(try target("docker.io")))
            #expect(try !store.remove(try target("docker.io")))
            #expect(try store.removeAll() == 1)
            #expect(try entries(directory).filter { $0.hasPrefix("store-") } == [])
        }
    }

    @Test func helpersOfTheRegistriesConfiguration() throws {
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/docker-credential-fixed", "#!/bin/sh\necho '{\"Username\":\"helper\",\"Secret\":\"s\"}'\n", mode: 0o700)
            try writeFile(directory + "/auth.json", #"{"auths":{"a.example":{"auth":"ZmlsZTpz"}}}"#)
            for (helpers, user) in [
                (#"["fixed"]"#, "helper"), (#"["containers-auth.json", "fixed"]"#, "file"),
                (#"["fixed", "containers-auth.json"]"#, "helper"),
            ] {
                try writeFile(directory + "/r.conf", "credential-helpers = \(helpers)")
                var options = RegistryOptions()
                options.authFile = ByteString(directory + "/auth.json")
                options.registriesConfiguration = ByteString(directory + "/r.conf")
                let store = LoginStore(options, Environment(["PATH": directory + ":/usr/bin:/bin"], systemRoot: "/nonexistent"))
                #expect(try store.user(for: try target("a.example")) == user)
            }
        }
    }

    // MARK: The registry's word

    private func check(_ registry: String, _ adjust: (inout RegistryOptions) -> Void) throws -> Bool {
        try makeClient([:], adjust).checkCredentials(for: try target(registry))
    }

    @Test func basic() throws {
        let server = ScriptedServer { request in
            request.headers["authorization"] == "Basic bWU6cHc="
                ? [.reply(200, [:], Array("{}".utf8))] : [.reply(401, ["WWW-Authenticate": #"Basic realm="x""#])]
        }
        defer { server.stop() }
        #expect(try check(server.host) { $0.credentials = .password(user: "me", password: "pw") })
        #expect(server.requests.map(\.path) == ["/v2/", "/v2/"])
        let wrong = registryError { _ = try check(server.host) { $0.credentials = .password(user: "me", password: "no") } }
        #expect(wrong?.kind == .unauthorized)
        #expect(wrong?.description.contains("the given credentials are not accepted") == true)
        #expect(registryError { _ = try check(server.host) { _ in } }?.kind == .unauthorized)
    }

    @Test func tokens() throws {
        let server = ScriptedServer { request in
            switch request.path {
            case "/token" where request.headers["authorization"] == "Basic bWU6cHc=":
                return [.reply(200, [:], Array(#"{"token":"T"}"#.utf8))]
            case "/token": return [.reply(401)]
            case _ where request.headers["authorization"] == "Bearer T": return [.reply(200)]
            default:
                let host = request.headers["host"] ?? ""
                return [.reply(401, ["WWW-Authenticate": #"Bearer realm="http://\#(host)/token",service="s""#])]
            }
        }
        defer { server.stop() }
        #expect(try check(server.host + "/team") { $0.credentials = .password(user: "me", password: "pw") })
        // No scope: only the identity matters.
        #expect(server.requests(to: "/token").map(\.query) == ["service=s&account=me"])
        #expect(
            registryError { _ = try check(server.host) { $0.credentials = .password(user: "me", password: "no") } }?.kind == .unauthorized)
    }

    @Test func registriesThatDoNotAsk() throws {
        let server = ScriptedServer { _ in [.reply(200)] }
        defer { server.stop() }
        #expect(try check(server.host) { $0.credentials = .password(user: "me", password: "pw") } == false)
        #expect(server.requests.allSatisfy { $0.headers["authorization"] == nil })
        let other = ScriptedServer { _ in [.reply(404)] }
        defer { other.stop() }
        #expect(registryError { _ = try check(other.host) { _ in } }?.kind == .notFound)
    }

    @Test func blockedRegistry() throws {
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/r.conf",
                "unqualified-search-registries = [\"b.example\"]\n[[registry]]\nlocation = \"a.example\"\nblocked = true")
            let error = registryError { _ = try check("a.example") { $0.registriesConfiguration = ByteString(directory + "/r.conf") } }
            #expect(error?.kind == .blocked)
            let client = try makeClient { $0.registriesConfiguration = ByteString(directory + "/r.conf") }
            #expect(try client.defaultLoginTarget().description == "b.example")
            #expect(try makeClient().defaultLoginTarget().description == "docker.io")
        }
    }
}
