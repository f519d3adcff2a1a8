import ComposefsJSON
import Glibc
import Testing

/// registries.conf by option and by variable, and the resulting image names.
struct CommandRegistriesTests {
    private func withServer(_ body: (_ folder: TemporaryFolder, _ host: String) throws -> Void) throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/layout", layers: 2, fileSize: 1 << 20)
        let server = try LayoutServer(layout: folder.path + "/layout")
        defer { server.stop() }
        try Cfsoci.succeed(["init", folder.path + "/repo", "--insecure"])
        try body(folder, "127.0.0.1:\(server.port)")
    }

    private func configuration(_ folder: TemporaryFolder, _ text: String) throws -> String {
        let path = folder.path + "/registries.conf"
        try writeFile(path, Array(text.utf8))
        return path
    }

    @Test func aliasesAndMirrors() throws {
        try withServer { (folder, host) throws in
            let path = try configuration(
                folder,
                """
                [aliases]
                app = "registry.invalid/shop/app"
                [[registry]]
                location = "registry.invalid/shop"
                [[registry.mirror]]
                location = "\(host)/team"
                """)
            let repository = ["--repo", folder.path + "/repo"]
            let pulled = try Cfsoci.run(["pull", "app", "--registries-conf", path] + repository)
            #expect(pulled.status == 0, "\(pulled.error)")
            // The name is the requested one, not the mirror's.
            #expect(pulled.lines.contains("tagged  registry.invalid/shop/app:latest"))
            for name in ["registry.invalid/shop/app:latest", "registry.invalid/shop/app"] {
                #expect(try Cfsoci.run(["inspect", name] + repository).status == 0)
            }
            let again = try Cfsoci.run(["pull", "app", "again"] + repository, environment: ["CONTAINERS_REGISTRIES_CONF=" + path])
            #expect(again.status == 0, "\(again.error)")
        }
    }

    /// Without the configuration a short name is ambiguous, and does not match the stored image.
    @Test func unreadable() throws {
        try withServer { (folder, host) throws in
            let repository = ["--repo", folder.path + "/repo"]
            try Cfsoci.succeed(["pull", "\(host)/team/app", "docker.io/library/app:latest"] + repository)
            try Cfsoci.succeed(["pull", "app", "--policy", "never", "--registries-conf", configuration(folder, "")] + repository)
            let broken = try configuration(folder, "[aliases]\napp = 5")
            for policy in ["never", "missing"] {
                let options = ["--policy", policy] + repository
                let refused = try Cfsoci.run(["pull", "app"] + options, environment: ["CONTAINERS_REGISTRIES_CONF=" + broken])
                #expect(refused.status == 1 && refused.error.contains("registries.conf:2: app must be a string"), "\(refused.error)")
                let missing = try Cfsoci.run(["pull", "app", "--registries-conf", folder.path + "/none"] + options)
                #expect(missing.status == 1 && missing.error.contains("/none does not exist"), "\(missing.error)")
                let searching = try Cfsoci.run(
                    ["pull", "app", "--registries-conf", configuration(folder, "unqualified-search-registries = []")] + options)
                #expect(searching.status == 1 && searching.error.contains("names no registries to search"), "\(searching.error)")
                _ = try configuration(folder, "[aliases]\napp = 5")
            }
        }
    }

    @Test func searchedRegistries() throws {
        try withServer { (folder, host) throws in
            let path = try configuration(folder, "unqualified-search-registries = [\"127.0.0.1:1\", \"\(host)\"]")
            let options = ["--registries-conf", path, "--repo", folder.path + "/repo"]
            let pulled = try Cfsoci.run(["pull", "team/app"] + options)
            #expect(pulled.lines.contains("tagged  \(host)/team/app:latest"), "\(pulled.error)")
            #expect(try Cfsoci.run(["inspect", "team/app", "--repo", folder.path + "/repo"]).status == 0)
            let ambiguous = try Cfsoci.run(
                ["pull", "team/other", "--repo", folder.path + "/repo", "--registries-conf"]
                    + [
                        try configuration(
                            folder, "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"a.example\", \"\(host)\"]")
                    ])
            #expect(ambiguous.status == 1)
            #expect(ambiguous.error.contains("team/other may be a.example/team/other:latest or \(host)/team/other:latest"))
        }
    }

    @Test func refusals() throws {
        try withServer { (folder, host) throws in
            func pull(_ text: String) throws -> CommandResult {
                try Cfsoci.run(
                    ["pull", "\(host)/team/app", "--repo", folder.path + "/repo", "--registries-conf", try configuration(folder, text)])
            }
            let blocked = try pull("\n[[registry]]\nlocation = \"\(host)\"\nblocked = true\n")
            #expect(blocked.status == 4)
            #expect(blocked.error.contains("\(host)/team/app:latest is blocked: \(folder.path)/registries.conf:2 blocks \(host)"))
            let mistaken = try pull("a = 1\nblocked = maybe\n")
            #expect(mistaken.status == 1)
            #expect(mistaken.error.contains("\(folder.path)/registries.conf:2: maybe is not a value"), "\(mistaken.error)")
            let missing = try Cfsoci.run(
                ["pull", "\(host)/team/app", "--repo", folder.path + "/repo", "--registries-conf", folder.path + "/nothing"])
            #expect(missing.error.contains("\(folder.path)/nothing does not exist"))
            let certificates = try Cfsoci.run(
                ["pull", "\(host)/team/app", "--repo", folder.path + "/repo", "--cert-dir", folder.path + "/nothing"])
            #expect(certificates.error.contains("certificate directory \(folder.path)/nothing does not exist"))
        }
    }

    /// Images on this machine do not need it.
    @Test func localSourcesReadNoConfiguration() throws {
        try withServer { (folder, _) throws in
            let result = try Cfsoci.run(
                ["pull", "oci:\(folder.path)/layout", "t", "--repo", folder.path + "/repo", "--registries-conf", folder.path + "/nothing"])
            #expect(result.status == 0, "\(result.error)")
        }
    }
}
