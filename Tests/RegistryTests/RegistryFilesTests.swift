import ComposefsBytes
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsRegistry

/// The files that a program must be able to reach that confines itself and then uses a registry.
@Suite struct RegistryFilesTests {
    private func files(
        _ root: String, user: UInt32 = 1000, _ environment: [String: String] = [:], records: Bool = false,
        _ adjust: (inout RegistryOptions) -> Void = { _ in }
    ) -> RegistryFiles {
        var options = RegistryOptions()
        adjust(&options)
        let environment = Environment(["HOME": root + "/home"].merging(environment) { $1 }, systemRoot: root, userID: user)
        return options.files(environment, recordsShortName: records)
    }

    @Test func usualPlaces() throws {
        try withTemporaryDirectory { root in
            let found = files(root)
            for path in [
                "etc/containers/registries.conf", "etc/containers/registries.conf.d", "usr/share/containers/registries.conf",
                "home/.config/containers/registries.conf", "etc/containers/certs.d", "etc/docker/certs.d", "run/containers/1000/auth.json",
                "home/.config/containers/auth.json", "home/.docker/config.json", "home/.cache/containers/short-name-aliases.conf",
            ] {
                #expect(found.readable.contains(ByteString("\(root)/\(path)")), "\(path)")
            }
            #expect(found.writable.isEmpty && !found.runsHelpers)
        }
    }

    /// Files that are named replace the usual ones.
    @Test func namedFiles() throws {
        try withTemporaryDirectory { root in
            let found = files(root, ["CONTAINERS_REGISTRIES_CONF": "/other.conf", "REGISTRY_AUTH_FILE": "/auth"]) {
                $0.certificateDirectory = "/certificates"
                $0.certificateAuthorities = "/authorities"
            }
            for path in ["/other.conf", "/auth", "/certificates", "/authorities"] as [ByteString] { #expect(found.readable.contains(path)) }
            #expect(!found.readable.contains { $0.hasSuffix("registries.conf") || $0.hasSuffix("auth.json") || $0.hasSuffix("certs.d") })
        }
    }

    /// certs.d/HOST may be a link, and so may its files.
    @Test func targetsOfLinks() throws {
        try withTemporaryDirectory { root in
            for path in ["etc", "etc/containers", "etc/containers/certs.d", "etc/containers/certs.d/example.com", "keys"] {
                try makeDirectory("\(root)/\(path)")
            }
            try writeFile(root + "/keys/ca", "")
            symlink(root + "/keys/ca", root + "/etc/containers/certs.d/example.com/ca.crt")
            symlink(root + "/keys", root + "/etc/containers/certs.d/other.example")
            let found = files(root).readable
            for path in ["example.com/ca.crt", "other.example"] {
                #expect(found.contains(ByteString("\(root)/etc/containers/certs.d/\(path)")), "\(path)")
            }
        }
    }

    @Test func credentialHelpers() throws {
        try withTemporaryDirectory { root in
            let auth = root + "/auth.json"
            for (text, runs) in [
                (#"{"auths":{}}"#, false), (#"{"credsStore":"pass"}"#, true), (#"{"credHelpers":{"example.com":"ecr-login"}}"#, true),
                (#"{"credsStore":""}"#, false), ("damaged", false),
            ] {
                try writeFile(auth, text)
                #expect(files(root) { $0.authFile = ByteString(auth) }.runsHelpers == runs, "\(text)")
            }
            try writeFile(auth, #"{"credsStore":"pass"}"#)
            #expect(
                !files(root) {
                    $0.authFile = ByteString(auth)
                    $0.usesStoredCredentials = false
                }.runsHelpers)
            let configuration = root + "/registries.conf"
            for (text, runs) in [(#"["containers-auth.json"]"#, false), (#"["containers-auth.json", "secretservice"]"#, true)] {
                try writeFile(configuration, "credential-helpers = \(text)")
                #expect(files(root) { $0.registriesConfiguration = ByteString(configuration) }.runsHelpers == runs, "\(text)")
            }
        }
    }

    @Test func directoriesToWrite() throws {
        try withTemporaryDirectory { root in
            let cache = ByteString(root + "/home/.cache/containers")
            #expect(files(root, records: true).writable == [cache])
            #expect(access(root + "/home/.cache/containers", F_OK) == 0)
            #expect(files(root, records: true) { $0.recordsChoices = false }.writable.isEmpty)
            // The file is a link: its target is replaced in its own directory.
            try makeDirectory(root + "/elsewhere")
            try makeDirectory(root + "/here")
            try writeFile(root + "/elsewhere/auth.json", "{}")
            symlink("../elsewhere/auth.json", root + "/here/auth.json")
            var options = RegistryOptions()
            options.authFile = ByteString(root + "/here/auth.json")
            let environment = Environment([:], systemRoot: root, userID: 1000)
            #expect(
                LoginStore(options, environment).files(makesDirectory: false).writable
                    == [ByteString(root + "/here"), ByteString(root + "/elsewhere")])
            options.authFile = ByteString(root + "/new/below/auth.json")
            _ = LoginStore(options, environment).files(makesDirectory: false)
            #expect(access(root + "/new", F_OK) != 0)
            _ = LoginStore(options, environment).files(makesDirectory: true)
            #expect(access(root + "/new/below", F_OK) == 0)
        }
    }
}
