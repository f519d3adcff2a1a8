import ComposefsBytes
import Glibc
import Testing

@testable import ComposefsRegistry

/// Which files and helpers are searched for credentials, and which of several entries counts.
@Suite struct CredentialTests {
    private let hub = RemoteRepository(domain: "docker.io", name: "library/alpine")
    private let quay = RemoteRepository(domain: "quay.io", name: "org/team/app")

    private func find(_ json: String, _ repository: RemoteRepository) throws -> RegistryCredentials? {
        try AuthFile("auth.json", Array(json.utf8)).find(for: repository, Environment([:]))?.credentials
    }

    private func user(_ name: String) -> RegistryCredentials { .password(user: name, password: "p") }
    private func auth(_ name: String) -> String { #"{"auth":"\#(Base64.encode(Array("\(name):p".utf8)))"}"# }

    @Test func mostSpecificEntryCounts() throws {
        let json =
            #"{"auths":{"quay.io":\#(auth("host")),"quay.io/org":\#(auth("org")),"quay.io/org/team/app":\#(auth("app")),"quay.io/or":\#(auth("or"))}}"#
        #expect(try find(json, quay) == user("app"))
        #expect(try find(json, RemoteRepository(domain: "quay.io", name: "org/other")) == user("org"))
        #expect(try find(json, RemoteRepository(domain: "quay.io", name: "orga/x")) == user("host"))
        #expect(try find(json, hub) == nil)
    }

    @Test(arguments: [
        "docker.io", "https://index.docker.io/v1/", "index.docker.io", "https://registry-1.docker.io/v2/", "http://index.docker.io",
    ])
    func dockerHubsNames(key: String) throws {
        #expect(try find(#"{"auths":{"\#(key)":\#(auth("me"))}}"#, hub) == user("me"))
    }

    @Test func namespacesOfOthersAreNotTheirHosts() throws {
        #expect(try find(#"{"auths":{"quay.io/secret":\#(auth("me"))}}"#, quay) == nil)
        #expect(try find(#"{"auths":{"https://quay.io.evil.example/v1/":\#(auth("me"))}}"#, quay) == nil)
    }

    @Test func kindsOfEntries() throws {
        #expect(try find(#"{"auths":{"quay.io":{"auth":"dTo=","identitytoken":"tok"}}}"#, quay) == .identityToken("tok"))
        #expect(try find(#"{"auths":{"quay.io":{"registrytoken":"tok"}}}"#, quay) == .registryToken("tok"))
        #expect(try find(#"{"auths":{"quay.io":{"username":"u","password":"p"}}}"#, quay) == user("u"))
        #expect(try find(#"{"auths":{"quay.io":{}}}"#, quay) == nil)
        // A colon in the password, and the NULs that docker pads with.
        #expect(
            try find(#"{"auths":{"quay.io":{"auth":"\#(Base64.encode(Array("u:a:b\0\0".utf8)))"}}}"#, quay)
                == .password(user: "u", password: "a:b"))
    }

    /// Line breaks as `base64` of coreutils and editors write them.
    @Test(arguments: ["dT\\npw", "dTpw\\n", "dTp\\r\\nw", "\\ndTpw\\r\\n\\n"])
    func lineEndsInEntries(auth: String) throws {
        #expect(try find(#"{"auths":{"quay.io":{"auth":"\#(auth)"}}}"#, quay) == user("u"))
    }

    @Test(arguments: ["####", "dQ==", "/w==", "dQo6cA=="])
    func damagedEntries(auth: String) {
        let error = registryError { _ = try find(#"{"auths":{"quay.io":{"auth":"\#(auth)"}}}"#, quay) }
        #expect(error?.kind == .credentials)
        #expect(error?.description == "auth file auth.json: the entry quay.io is not base64 of user:password")
    }

    @Test func damagedFile() {
        let error = registryError { _ = try find(#"{"auths":"#, quay) }
        #expect(error?.kind == .credentials)
        #expect(error?.description.hasPrefix("auth file auth.json: ") == true)
    }

    @Test func filesInOrder() throws {
        try withTemporaryDirectory { directory in
            func file(_ name: String, _ who: String) throws -> String {
                try writeFile("\(directory)/\(name)", #"{"auths":{"quay.io":\#(auth(who))}}"#)
                return "\(directory)/\(name)"
            }
            for sub in ["run", "run/containers", "config", "config/containers", "docker"] { try makeDirectory("\(directory)/\(sub)") }
            var environment = ["HOME": directory]
            func found(_ options: RegistryOptions = RegistryOptions()) throws -> RegistryCredentials? {
                try CredentialStore(options, Environment(environment)).find(for: quay)?.credentials
            }
            #expect(try found() == nil)
            environment["DOCKER_CONFIG"] = directory + "/docker"
            _ = try file("docker/config.json", "docker")
            #expect(try found() == user("docker"))
            environment["XDG_CONFIG_HOME"] = directory + "/config"
            _ = try file("config/containers/auth.json", "config")
            #expect(try found() == user("config"))
            environment["XDG_RUNTIME_DIR"] = directory + "/run"
            _ = try file("run/containers/auth.json", "run")
            #expect(try found() == user("run"))
            environment["REGISTRY_AUTH_FILE"] = try file("named.json", "variable")
            #expect(try found() == user("variable"))
            var options = RegistryOptions()
            options.authFile = ByteString(try file("option.json", "option"))
            #expect(try found(options) == user("option"))
            options.credentials = user("given")
            #expect(try found(options) == user("given"))
            // A file that is given explicitly has to exist, and is the only one.
            environment["REGISTRY_AUTH_FILE"] = directory + "/missing.json"
            #expect(registryError { _ = try found() }?.kind == .credentials)
            try writeFile(directory + "/empty.json", "{}")
            environment["REGISTRY_AUTH_FILE"] = directory + "/empty.json"
            #expect(try found() == nil)
        }
    }

    @Test func homeDirectories() throws {
        try withTemporaryDirectory { directory in
            try makeDirectory(directory + "/.docker")
            try writeFile(directory + "/.docker/config.json", #"{"auths":{"https://index.docker.io/v1/":\#(auth("docker"))}}"#)
            let store = CredentialStore(RegistryOptions(), Environment(["HOME": directory, "XDG_RUNTIME_DIR": directory]))
            #expect(try store.find(for: hub)?.credentials == user("docker"))
            #expect(try store.find(for: hub)?.origin == .authFile(ByteString("\(directory)/.docker/config.json")))
            try makeDirectory(directory + "/.config")
            try makeDirectory(directory + "/.config/containers")
            try writeFile(directory + "/.config/containers/auth.json", #"{"auths":{"docker.io":\#(auth("containers"))}}"#)
            #expect(try store.find(for: hub)?.credentials == user("containers"))
        }
    }

    /// A helper that has credentials for `known.example`, records its input, and fails in several ways.
    private func withHelper(_ body: (String, Environment) throws -> Void) throws {
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/docker-credential-test",
                """
                #!/bin/sh
                read server
                echo "$1 $server" >> \(directory)/asked
                echo "noise s3cret" >&2
                case $server in
                known.example) echo '{"ServerURL":"known.example","Username":"me","Secret":"s3cret"}' ;;
                token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"s3cret"}' ;;
                https://index.docker.io/v1/) echo '{"ServerURL":"x","Username":"hub","Secret":"s3cret"}' ;;
                broken.example) echo '{"Secret":"s3cret"' ;;
                failing.example) echo "s3cret"; exit 3 ;;
                *) echo "credentials not found in native keychain"; exit 1 ;;
                esac
                """, mode: 0o700)
            try body(directory, Environment(["PATH": "relative:\(directory)"]))
        }
    }

    /// exec does not close libcurl's connections, for example.
    @Test func helpersInheritNothing() throws {
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/docker-credential-look",
                """
                #!/bin/sh
                echo $(ls /proc/self/fd) $(grep SigBlk /proc/self/status) > \(directory)/seen
                echo '{"Username":"u","Secret":"s"}'
                """, mode: 0o700)
            let open = fcntl(0, F_DUPFD, 200)
            defer { close(open) }
            try #require(open >= 200)
            let environment = Environment(["PATH": directory + ":/usr/bin:/bin"])
            #expect(try CredentialHelper(name: "look", environment: environment).get(server: "a.example") != nil)
            let seen = String(decoding: try #require(try readSmallFile(ByteString(directory + "/seen"), limit: 1000)), as: UTF8.self)
            #expect(seen == "0 1 2 3 SigBlk: 0000000000000000\n")
        }
    }

    @Test func helperAnswers() throws {
        try withHelper { _, environment in
            let helper = CredentialHelper(name: "test", environment: environment)
            let answers = try ["known.example", "token.example", "unknown.example"].map { try helper.get(server: $0) }
            #expect(answers == [.password(user: "me", password: "s3cret"), .identityToken("s3cret"), nil])
            for server in ["broken.example", "failing.example"] {
                let error = registryError { _ = try helper.get(server: server) }
                #expect(error?.kind == .credentials)
                #expect(error?.description.contains(server) == true)
                #expect(error?.description.contains("s3cret") == false)
            }
            let missing = registryError { _ = try CredentialHelper(name: "absent", environment: environment).get(server: "x") }
            #expect(missing?.description == "the credential helper docker-credential-absent is not in PATH")
            for name in ["", "../test", "a b", "x\n"] {
                #expect(
                    registryError { _ = try CredentialHelper(name: name, environment: environment).get(server: "x") }?.kind == .credentials)
            }
        }
    }

    @Test func helpersAndStores() throws {
        try withHelper { directory, environment in
            func find(_ json: String, _ repository: RemoteRepository) throws -> RegistryCredentials? {
                try AuthFile("auth.json", Array(json.utf8)).find(for: repository, environment)?.credentials
            }
            let known = RemoteRepository(domain: "known.example", name: "a/b")
            // A helper for the registry takes precedence over the entry, which takes precedence over the default helper.
            let me = RegistryCredentials.password(user: "me", password: "s3cret")
            #expect(try find(#"{"auths":{"known.example":\#(auth("file"))},"credHelpers":{"known.example":"test"}}"#, known) == me)
            #expect(try find(#"{"auths":{"known.example":\#(auth("file"))},"credsStore":"test"}"#, known) == user("file"))
            #expect(try find(#"{"auths":{"known.example":{}},"credsStore":"test"}"#, known) == me)
            #expect(try find(#"{"credHelpers":{"other.example":"test"}}"#, known) == nil)
            #expect(try find(#"{"credsStore":"test"}"#, quay) == nil)
            #expect(try find(#"{"credHelpers":{"docker.io":"test"}}"#, hub) == .password(user: "hub", password: "s3cret"))
            let asked = try #require(try readSmallFile(ByteString(directory + "/asked"), limit: 4096))
            #expect(String(decoding: asked, as: UTF8.self).split(separator: "\n").first == "get known.example")
        }
    }
}
