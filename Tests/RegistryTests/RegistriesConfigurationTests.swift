import ComposefsBytes
import ComposefsHTTPClient
import ComposefsOCIModel
import ComposefsTransports
import Glibc
import Testing

@testable import ComposefsRegistry

private func configuration(_ texts: String...) throws -> RegistriesConfiguration {
    var configuration = RegistriesConfiguration()
    for (index, text) in texts.enumerated() {
        let path = ByteString("/etc/\(index).conf")
        configuration.merge(try RegistriesFile(path, Array(text.utf8)), path)
    }
    return configuration
}

private func reference(_ text: String) throws -> RegistryReference { try RegistryReference(parsing: text) }

extension RegistriesConfiguration {
    fileprivate func endpoints(_ text: String) throws -> [String] {
        try endpoints(for: try reference(text)).map {
            "\($0.domain)/\($0.name)" + ($0.isMirror ? " mirror" : "") + ($0.isInsecure ? " insecure" : "")
        }
    }

    fileprivate func meanings(_ text: String) throws -> [String] { try candidates(for: try reference(text), choose: nil).map(\.canonical) }
}

/// Facts from containers-registries.conf(5).
@Suite struct RegistriesConfigurationTests {
    /// The example of the manual page.
    private let example = """
        unqualified-search-registries = ["example.com"]

        [[registry]]
        prefix = "example.com/foo"
        insecure = false
        blocked = false
        location = "internal-registry-for-example.com/bar"

        [[registry.mirror]]
        location = "example-mirror-0.local/mirror-for-foo"
        proxy = "http://proxy.example.com:8000"

        [[registry.mirror]]
        location = "example-mirror-1.local/mirrors/foo"
        insecure = true

        [[registry]]
        location = "registry.com"

        [[registry.mirror]]
        location = "mirror.registry.com"
        """

    @Test func theManualsExample() throws {
        let configuration = try configuration(example)
        #expect(
            try configuration.endpoints("example.com/foo/image:latest") == [
                "example-mirror-0.local/mirror-for-foo/image mirror", "example-mirror-1.local/mirrors/foo/image mirror insecure",
                "internal-registry-for-example.com/bar/image",
            ])
        #expect(try configuration.endpoints("registry.com/image:latest") == ["mirror.registry.com/image mirror", "registry.com/image"])
        #expect(try configuration.endpoints("example.com/bar/image") == ["example.com/bar/image"])
        // A prefix ends where a component ends.
        #expect(try configuration.endpoints("example.com/foobar") == ["example.com/foobar"])
        #expect(
            try configuration.endpoints("example.com/foo") == [
                "example-mirror-0.local/mirror-for-foo mirror", "example-mirror-1.local/mirrors/foo mirror insecure",
                "internal-registry-for-example.com/bar",
            ])
        #expect(try configuration.meanings("image") == ["example.com/image:latest"])
        let endpoints = try configuration.endpoints(for: try reference("example.com/foo/image"))
        #expect(endpoints.map { $0.proxy?.text } == ["http://proxy.example.com:8000", nil, nil])
        // Credentials for example.com are sent to none of the other hosts.
        #expect(endpoints.allSatisfy { !$0.takesGivenCredentials })
        #expect(try configuration.endpoints(for: try reference("registry.com/image")).map(\.takesGivenCredentials) == [false, true])
    }

    @Test func theLongestPrefixCounts() throws {
        let configuration = try configuration(
            """
            [[registry]]
            location = "a.example"
            insecure = true
            [[registry]]
            prefix = "a.example/team/app"
            location = "b.example/app"
            [[registry]]
            prefix = "a.example/team"
            blocked = true
            location = "a.example/team"
            [[registry]]
            prefix = "a.example/other:v2"
            location = "c.example/other:v3"
            [[registry]]
            prefix = "docker.io/library"
            location = "Hub.Example:5000/Mirror"
            """.replacingMirror)
        #expect(try configuration.endpoints("a.example/x") == ["a.example/x insecure"])
        #expect(try configuration.endpoints("a.example/team/app") == ["b.example/app"])
        #expect(try configuration.endpoints("a.example/team/app/sub:1") == ["b.example/app/sub"])
        #expect(try configuration.endpoints("a.example/other:v2") == ["c.example/other"])
        #expect(try configuration.endpoints("a.example/other:v1") == ["a.example/other insecure"])
        #expect(try configuration.endpoints("alpine") == ["hub.example:5000/mirror/alpine"])
        let blocked = registryError { _ = try configuration.endpoints("a.example/team/x") }
        #expect(blocked?.kind == .blocked)
        #expect(blocked?.description == "a.example/team/x:latest is blocked: /etc/0.conf:7 blocks a.example/team")
    }

    @Test func wildcards() throws {
        let configuration = try configuration(
            """
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            [[registry]]
            prefix = "*.b.example.com"
            location = "internal.net/ns"
            """)
        #expect(try configuration.endpoints("x.example.com/a") == ["x.example.com/a insecure"])
        #expect(try configuration.endpoints("x.y.example.com:5000/a") == ["x.y.example.com:5000/a insecure"])
        #expect(try configuration.endpoints("example.com/a") == ["example.com/a"])
        #expect(try configuration.endpoints("xexample.com/a") == ["xexample.com/a"])
        #expect(try configuration.endpoints("other.org/x.example.com/a") == ["other.org/x.example.com/a"])
        #expect(try configuration.endpoints("q.b.example.com/a:1") == ["internal.net/ns/a"])
    }

    @Test func mirrorsByKindOfReference() throws {
        let digest = "@sha256:" + String(repeating: "0a", count: 32)
        let each = try configuration(
            """
            [[registry]]
            location = "a.example"
            [[registry.mirror]]
            location = "all.example"
            pull-from-mirror = "all"
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.example"
            pull-from-mirror = "tag-only"
            [[registry.mirror]]
            location = "empty.example"
            pull-from-mirror = ""
            """)
        #expect(
            try each.endpoints("a.example/x:1") == [
                "all.example/x mirror", "tags.example/x mirror", "empty.example/x mirror", "a.example/x",
            ])
        for text in ["a.example/x\(digest)", "a.example/x:1\(digest)"] {
            #expect(
                try each.endpoints(text) == ["all.example/x mirror", "digests.example/x mirror", "empty.example/x mirror", "a.example/x"])
        }
        let digestsOnly = try configuration(
            """
            [[registry]]
            location = "a.example"
            mirror-by-digest-only = true
            mirror = [{location = "m.example"}]
            """)
        #expect(try digestsOnly.endpoints("a.example/x:1") == ["a.example/x"])
        #expect(try digestsOnly.endpoints("a.example/x\(digest)") == ["m.example/x mirror", "a.example/x"])
    }

    @Test func mirrorsAreRegistriesToo() throws {
        let configuration = try configuration(
            """
            [[registry]]
            location = "a.example"
            mirror = [{location = "m.example"}, {location = "blocked.example/x"}]
            [[registry]]
            location = "m.example"
            insecure = true
            proxy = "socks5h://user:secret@p.example:1080"
            [[registry]]
            location = "blocked.example"
            blocked = true
            """)
        #expect(try configuration.endpoints("a.example/x") == ["m.example/x mirror insecure", "a.example/x"])
        let proxy = try #require(try configuration.endpoints(for: try reference("a.example/x")).first?.proxy)
        #expect("\(proxy) \(String(reflecting: proxy))" == "socks5h://p.example:1080 socks5h://p.example:1080")
        #expect(proxy.text == "socks5h://user:secret@p.example:1080")
        var text = ""
        dump(proxy, to: &text)
        #expect(!text.contains("secret"))
    }

    @Test func laterFilesReplaceSettings() throws {
        let configuration = try configuration(
            """
            unqualified-search-registries = ["one.example", "two.example"]
            short-name-mode = "enforcing"
            [[registry]]
            location = "a.example"
            insecure = true
            mirror = [{location = "m.example"}]
            [aliases]
            kept = "k.example/kept"
            changed = "k.example/changed"
            gone = "k.example/gone"
            """,
            """
            unqualified-search-registries = ["three.example"]
            [[registry]]
            location = "a.example"
            [[registry]]
            location = "b.example"
            insecure = true
            [aliases]
            changed = "l.example/changed"
            gone = ""
            """)
        #expect(configuration.shortNameMode == .enforcing)
        #expect(try configuration.endpoints("a.example/x") == ["a.example/x"])
        #expect(try configuration.endpoints("b.example/x") == ["b.example/x insecure"])
        #expect(try configuration.meanings("kept:1") == ["k.example/kept:1"])
        #expect(try configuration.meanings("changed") == ["l.example/changed:latest"])
        #expect(try configuration.meanings("gone") == ["three.example/gone:latest"])
    }

    @Test func shortNames() throws {
        // Without configuration: Docker Hub.
        #expect(try configuration("").meanings("alpine") == ["docker.io/library/alpine:latest"])
        #expect(try configuration("").meanings("team/app:1") == ["docker.io/team/app:1"])
        let digest = "@sha256:" + String(repeating: "0a", count: 32)
        let several = #"unqualified-search-registries = ["docker.io", "q.example:5000", "docker.io"]"#
        let permissive = try configuration(several + "\n[aliases]\nfedora = \"r.example/f/fedora\"")
        #expect(
            try permissive.meanings("alpine:3\(digest)") == ["docker.io/library/alpine:3\(digest)", "q.example:5000/alpine:3\(digest)"])
        #expect(try permissive.meanings("fedora:40") == ["r.example/f/fedora:40"])
        #expect(try permissive.meanings("fedora\(digest)") == ["r.example/f/fedora\(digest)"])
        // Neither a name with a registry nor docker://NAME is a short name.
        #expect(try permissive.meanings("docker.io/fedora") == ["docker.io/library/fedora:latest"])
        guard case .registry(let qualified) = try parseReference("docker://fedora") else {
            Issue.record("no registry reference")
            return
        }
        #expect(try permissive.candidates(for: qualified, choose: nil).map(\.canonical) == ["docker.io/library/fedora:latest"])

        let enforcing = try configuration(several, #"short-name-mode = "enforcing""#)
        let error = registryError { _ = try enforcing.meanings("alpine") }
        #expect(error?.kind == .configuration)
        #expect(error?.description.contains("docker.io/library/alpine:latest or q.example:5000/alpine:latest") == true)
        // One registry is not ambiguous.
        #expect(
            try configuration(#"unqualified-search-registries = ["q.example"]"#, #"short-name-mode = "enforcing""#).meanings("a/b") == [
                "q.example/a/b:latest"
            ])

        let alpine = try reference("alpine")
        for text in ["enforcing", "permissive"] {
            let configuration = try configuration(several, "short-name-mode = \"\(text)\"")
            #expect(try configuration.candidates(for: alpine) { $0.last }.map(\.canonical) == ["q.example:5000/alpine:latest"])
            #expect(registryError { _ = try configuration.candidates(for: alpine) { _ in nil } }?.kind == .cancelled)
        }
        let disabled = try configuration(several, #"short-name-mode = "disabled""#)
        #expect(try disabled.candidates(for: alpine) { _ in nil }.count == 2)

        let none = registryError { _ = try configuration("unqualified-search-registries = []").meanings("alpine") }
        #expect(none?.description.contains("/etc/0.conf names no registries to search; write HOST/alpine") == true)
    }

    @Test func version1() throws {
        let configuration = try configuration(
            """
            [registries.search]
            registries = ['registry1.com', 'registry2.com']
            [registries.insecure]
            registries = ['registry3.com']
            [registries.block]
            registries = ['registry.untrusted.com', 'registry3.com']
            """)
        #expect(configuration.searchRegistries == ["registry1.com", "registry2.com"])
        #expect(configuration.registries.map(\.isInsecure) == [false, true])
        #expect(registryError { _ = try configuration.endpoints("registry.untrusted.com/x") }?.kind == .blocked)
    }

    @Test(arguments: [
        ("x = ", 1), ("\n\nx = \"a", 3), ("unqualified-search-registries = \"a.example\"", 1), ("\nunqualified-search-registries = [1]", 2),
        ("unqualified-search-registries = [\"a/b\"]", 1), ("unqualified-search-registries = [\"https://a\"]", 1),
        ("short-name-mode = \"strict\"", 1), ("short-name-mode = 1", 1), ("[registry]\nlocation = \"a\"", 1), ("registry = 1", 1),
        ("registry = [1]", 1), ("\n[[registry]]\ninsecure = true", 2), ("[[registry]]\nprefix = \"a.example\"", 1),
        ("[[registry]]\nlocation = \"a\"\nblocked = \"yes\"", 3), ("[[registry]]\nlocation = \"http://a\"", 2),
        ("[[registry]]\nlocation = \"a\"\nprefix = \"*.a/b\"", 3), ("[[registry]]\nlocation = \"a\"\nprefix = \"*.a:1\"", 3),
        ("[[registry]]\nlocation = \"a\"\n[[registry]]\nlocation = \"a\"\ninsecure = true", 3),
        ("[[registry]]\nlocation = \"a\"\nblocked = true\n[[registry]]\nlocation = \"a/\"", 4),
        ("[registries.insecure]\nregistries = [\"http://a\"]", 2), ("[registries.block]\nregistries = [\"\"]", 2),
        ("registries = [\"a\"]", 1),
        ("[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\ninsecure = true", 3),
        ("[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"some\"", 5),
        (
            "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"",
            6
        ),
        ("[[registry]]\nlocation = \"a\"\nproxy = \"ftp://p\"", 3), ("[[registry]]\nlocation = \"a\"\nproxy = \"\u{7f}\"", 3),
        ("[aliases]\n\"a:1\" = \"b.c/a\"", 2), ("[aliases]\n\"b.c/a\" = \"b.c/a\"", 2), ("[aliases]\na = \"a\"", 2),
        ("[aliases]\na = \"b.c/a:1\"", 2), ("[aliases]\na = \"b.c/a:latest\"", 2), ("[aliases]\na = 1", 2), ("aliases = 1", 1),
        ("[registries.search]\nregistries = [\"a\"]\n[[registry]]\nlocation = \"b\"", 1),
        ("[registries.search]\nregistries = [\"a/b\"]", 2),
    ])
    func mistakesAreNamedWithTheirLine(text: String, line: Int) {
        let error = registryError { _ = try configuration(text) }
        #expect(error?.kind == .configuration)
        #expect(error?.description.hasPrefix("/etc/0.conf:\(line): ") == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("\n") == false)
    }

    /// What skopeo 1.9.3 accepts or ignores: entries that match no reference, or repeat another one, must not prevent a pull.
    @Test(arguments: [
        "[registries.insecure]\nregistries = ['172.30.0.0/16', 'fd00::/8', '*', 'a b', 'host/path:5000']",
        "[registries.search]\nregistries = []\n[registries.insecure]\nregistries = ['172.30.0.0/16']\n[registries.block]\nregistries = []",
        "[registries.block]\nregistries = ['10.0.0.0/8', 'b.example/']", "[registries.search]\nregistries = ['s.example/']",
        "[[registry]]\nlocation = \"a b\"", "[[registry]]\nlocation = \"a//b\"", "[[registry]]\nlocation = \"/a\"",
        "[[registry]]\nlocation = \"10.0.0.0/8\"\ninsecure = true", "[[registry]]\nlocation = \"a\"\nprefix = \"a.*.b\"",
        "[[registry]]\nlocation = \"*.a\"", "[[registry]]\nlocation = \"a\"\n[[registry]]\nprefix = \"A\"\nlocation = \"b\"",
        "[[registry]]\nlocation = 'a'\ninsecure = true\n[[registry]]\nlocation = 'a/'\ninsecure = true",
        "[[registry]]\nlocation = 'a'\n[[registry.mirror]]\nlocation = 'm m'", "[registries.other]\nregistries = ['x']",
        "unqualified-search-registries = ['a']\n[registries.search]\nregistries = []\n[registries.insecure]\nregistries = []",
        "unqualified-search-registries = ['a']\n[registries.search]\n[registries.insecure]",
        "[registries.other]\n[[registry]]\nlocation = 'a'",
        "unqualified-search-registries = ['a.example:5000/team', 'b.example/', 'localhost/x/y/']",
    ])
    func oddEntries(text: String) throws {
        #expect(try configuration(text).endpoints("registry.example/app") == ["registry.example/app"])
    }

    @Test func whatOddEntriesMean() throws {
        // The first of two tables with the same prefix counts.
        let twice = try configuration(
            "[[registry]]\nprefix = 'p.example'\nlocation = 'x.example'\n"
                + "[[registry]]\nprefix = 'p.example'\nlocation = 'y.example'\ninsecure = true")
        #expect(try twice.endpoints("p.example/app") == ["x.example/app"])
        let old = try configuration(
            "[registries.insecure]\nregistries = ['a.example/', '*.b.example', '10.0.0.0/8']\n"
                + "[registries.block]\nregistries = ['c.example/']")
        #expect(try old.endpoints("a.example/app") == ["a.example/app insecure"])
        #expect(try old.endpoints("x.b.example/app") == ["x.b.example/app insecure"])
        #expect(try old.endpoints("10.1.2.3/app") == ["10.1.2.3/app"])
        #expect(registryError { _ = try old.endpoints("c.example/app") }?.kind == .blocked)
        #expect(try old.loginTarget("a.example").isInsecure)
        // A namespace after the host is allowed.
        let search = try configuration("unqualified-search-registries = ['a.example:5000/team', 'b.example/']")
        #expect(try search.meanings("app:1") == ["a.example:5000/team/app:1", "b.example/app:1"])
    }

    @Test func proxyMistakesHideThePassword() {
        let error = registryError { _ = try configuration("[[registry]]\nlocation = \"a\"\nproxy = \"bad://me:secret@p.example\"") }
        #expect(error?.description.contains("proxy is not the URL of a proxy") == true && error?.description.contains("secret") == false)
    }

    @Test func rewritingToNonsense() throws {
        let configuration = try configuration("[[registry]]\nprefix = \"a.example\"\nlocation = \"host\"")
        let error = registryError { _ = try configuration.endpoints("a.example/x") }
        let expected = "/etc/0.conf:1 turns a.example/x:latest into host/x:latest, which is not a reference to an image in a registry"
        #expect(error?.description == expected)
    }

    @Test func pushingGoesToTheRegistryItself() throws {
        let configuration = try configuration(example + "\n[[registry]]\nlocation = \"b.example\"\nblocked = true")
        let target = try configuration.pushTarget(for: try reference("example.com/foo/image"))
        #expect("\(target.domain)/\(target.name) \(target.isMirror)" == "example.com/foo/image false")
        #expect(registryError { _ = try configuration.pushTarget(for: try reference("b.example/x")) }?.kind == .blocked)
    }

    // MARK: Files

    @Test func filesAndDropIns() throws {
        try withTemporaryDirectory { root in
            for path in [
                "etc", "etc/containers", "usr", "usr/share", "usr/share/containers", "home", "home/.config", "home/.config/containers",
            ] {
                try makeDirectory("\(root)/\(path)")
            }
            func names(_ environment: [String: String] = [:], user: UInt32 = 1000, given: ByteString? = nil) throws -> [String] {
                let environment = Environment(
                    ["HOME": root + "/home"].merging(environment) { $1 }, systemRoot: root, userID: user)
                return try RegistriesConfiguration(given, environment).searchRegistries ?? []
            }
            func put(_ path: String, _ name: String) throws {
                try writeFile("\(root)/\(path)", "unqualified-search-registries = [\"\(name)\"]")
            }
            #expect(try names() == [])
            try put("usr/share/containers/registries.conf", "usr")
            #expect(try names() == ["usr"])
            try put("etc/containers/registries.conf", "etc")
            #expect(try names() == ["etc"])
            try put("home/.config/containers/registries.conf", "home")
            #expect(try names() == ["home"])
            #expect(try names(["XDG_CONFIG_HOME": root + "/nowhere"]) == ["etc"])

            // Drop-ins are sorted by name over all directories; of files with the same name, the one in the first directory counts.
            for path in ["usr/share", "etc"] {
                for kind in ["", ".rootful", ".rootless"] { try makeDirectory("\(root)/\(path)/containers/registries\(kind).conf.d") }
            }
            try put("usr/share/containers/registries.conf.d/50.conf", "usr50")
            #expect(try names() == ["usr50"])
            try put("etc/containers/registries.conf.d/40.conf", "etc40")
            #expect(try names() == ["usr50"])
            try put("etc/containers/registries.conf.d/50.conf", "etc50")
            #expect(try names() == ["etc50"])
            try put("etc/containers/registries.rootless.conf.d/60.conf", "rootless60")
            try put("etc/containers/registries.rootful.conf.d/60.conf", "rootful60")
            #expect(try names() == ["rootless60"])
            #expect(try names(user: 0) == ["rootful60"])
            try makeDirectory("\(root)/etc/containers/registries.rootless.conf.d/1000")
            try put("etc/containers/registries.rootless.conf.d/1000/70.conf", "user70")
            #expect(try names() == ["user70"])
            #expect(try names(user: 1001) == ["rootless60"])
            try makeDirectory("\(root)/home/.config/containers/registries.conf.d")
            try put("home/.config/containers/registries.conf.d/70.conf", "home70")
            #expect(try names() == ["home70"])
            // Other names, directories and dangling links are ignored.
            try put("home/.config/containers/registries.conf.d/80.conf.bak", "no")
            try makeDirectory("\(root)/home/.config/containers/registries.conf.d/90.conf")
            #expect(symlink("nothing", "\(root)/home/.config/containers/registries.conf.d/95.conf") == 0)
            #expect(try names() == ["home70"])

            try put("given.conf", "given")
            #expect(try names(["CONTAINERS_REGISTRIES_CONF": root + "/given.conf"]) == ["given"])
            #expect(try names(given: ByteString(root + "/given.conf")) == ["given"])
            #expect(try names(["CONTAINERS_REGISTRIES_CONF_OVERRIDE": root + "/given.conf"]) == ["given"])
            let missing = registryError { _ = try names(given: "/nonexistent/r.conf") }
            #expect(missing?.description == "/nonexistent/r.conf does not exist" && missing?.remedy == .correctRegistriesConfiguration)
            try writeFile(root + "/etc/containers/registries.conf.d/99.conf", "oops")
            #expect(
                registryError { _ = try names() }?.description.hasPrefix("\(root)/etc/containers/registries.conf.d/99.conf:1: ") == true)
        }
    }

    @Test func recordedAliasesComeFirst() throws {
        try withTemporaryDirectory { root in
            for path in ["etc", "etc/containers", "cache", "cache/containers", "var", "var/cache", "var/cache/containers"] {
                try makeDirectory("\(root)/\(path)")
            }
            try writeFile(root + "/etc/containers/registries.conf", "[aliases]\na = \"etc.example/a\"")
            try writeFile(root + "/cache/containers/short-name-aliases.conf", "[aliases]\na = \"user.example/a\"")
            try writeFile(root + "/var/cache/containers/short-name-aliases.conf", "[aliases]\na = \"root.example/a\"")
            for (user, name) in [(1000 as UInt32, "user"), (0, "root")] {
                let environment = Environment(["HOME": "/nonexistent", "XDG_CACHE_HOME": root + "/cache"], systemRoot: root, userID: user)
                #expect(try RegistriesConfiguration(nil, environment).meanings("a") == ["\(name).example/a:latest"])
            }
            // A damaged cache does not prevent a pull.
            try writeFile(root + "/cache/containers/short-name-aliases.conf", "[aliases")
            let environment = Environment(["XDG_CACHE_HOME": root + "/cache"], systemRoot: root, userID: 1000)
            #expect(try RegistriesConfiguration(nil, environment).meanings("a") == ["etc.example/a:latest"])
        }
    }
}

extension String {
    /// References are in lower case. The host of a location may have upper case, its path may not.
    fileprivate var replacingMirror: String { split(separator: "Mirror", omittingEmptySubsequences: false).joined(separator: "mirror") }
}
