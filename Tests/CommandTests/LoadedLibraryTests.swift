import ComposefsJSON
import Testing

/// libcurl is loaded by commands that use the network, and by no others.
@Suite struct LoadedLibraryTests {
    private let folder: TemporaryFolder
    /// Every program that looks for libcurl in the folder fails.
    private let environment: [String]

    init() throws {
        folder = try TemporaryFolder()
        try writeFile(folder.path + "/libcurl.so.4", Array("this is no library, but a file that is long enough to look like one: \n".utf8))
        environment = ["LD_LIBRARY_PATH=" + folder.path]
    }

    @Test func localCommands() throws {
        let (store, image) = try ContractStore.small()
        func output(_ arguments: [String]) throws -> String {
            let result = try store.run(arguments, environment: environment)
            #expect(result.status == 0 && result.error.isEmpty, "\(arguments): \(result.error)")
            #expect(try store.succeed(arguments).text == result.text)
            return result.text
        }
        #expect(try output(["images", "-q"]) == "t\n")
        #expect(try !output(["ls", "-R", "t"]).isEmpty)
        #expect(try output(["inspect", "t"]).contains(image.manifest))
        _ = try output(["fsck"])
        _ = try output(["df"])
        let release = try Cfsoci.run(["--version"], environment: environment)
        let wanted = try Cfsoci.succeed(["--version"])
        #expect(release.status == 0 && release.text == wanted.text)
        let pulled = try store.run(["pull", "oci:" + store.layoutPath("t"), "u"], environment: environment)
        #expect(pulled.status == 0, "\(pulled.error)")
    }

    @Test(arguments: [
        ["pull", "localhost:1/image"], ["--no-sandbox", "pull", "localhost:1/image"], ["push", "t", "localhost:1/image"],
        ["login", "-u", "me", "--password-stdin", "localhost:1"],
    ])
    func networkCommands(arguments: [String]) throws {
        let (store, _) = try ContractStore.small()
        let result = try store.run(arguments, input: Array("secret\n".utf8), environment: environment)
        #expect(result.status == 1 && result.output.isEmpty, "\(result.status) \(result.text)")
        #expect(result.error.hasPrefix("cfsoci: error: "), "\(result.error)")
        #expect(
            result.error.contains("libcurl is missing or broken: ") && result.error.contains("\(folder.path)/libcurl.so.4: "),
            "\(result.error)")
    }

    /// A configuration of OpenSSL may leave it without any algorithm that is looked up by its name, as one for FIPS does whose module is missing. Hashes
    /// are the same, and no command waits for the configuration to be read.
    @Test func configurationOfOpenSSL() throws {
        let (store, image) = try ContractStore.small()
        let path = folder.path + "/openssl.cnf"
        try writeFile(
            path, Array("openssl_conf = init\n[init]\nproviders = list\n[list]\nfips = module\n[module]\nactivate = 1\n".utf8))
        let environment = ["OPENSSL_CONF=" + path]
        func output(_ arguments: [String]) throws -> String {
            let result = try store.run(arguments, environment: environment)
            #expect(result.status == 0, "\(arguments): \(result.error)")
            return result.text
        }
        #expect(try output(["ls", "-R", "t"]) == store.succeed(["ls", "-R", "t"]).text)
        #expect(try output(["fsck", "--deep"]).contains("status: ok"))
        let other = folder.path + "/other"
        #expect(try Cfsoci.run(["init", other, "--insecure"], environment: environment).status == 0)
        let pull = ["pull", "oci:" + store.layoutPath("t"), "t", "--json", "--repo", other]
        let pulled = try Cfsoci.run(pull, environment: environment)
        #expect(pulled.status == 0 && pulled.text.contains(image.manifest), "\(pulled.error)")
        #expect(try Cfsoci.succeed(["fsck", "--deep", "--repo", other]).text.contains("status: ok"))
    }

    /// The address of a proxy is libcurl's to parse.
    @Test func proxyInConfiguration() throws {
        let (store, _) = try ContractStore.small()
        let path = folder.path + "/registries.conf"
        try writeFile(path, Array("[[registry]]\nlocation = \"localhost:1\"\nproxy = \"http://proxy.invalid:3128\"\n".utf8))
        let result = try store.run(["pull", "--registries-conf", path, "localhost:1/image"], environment: environment)
        #expect(result.status == 1 && result.error.contains("libcurl is missing or broken: "), "\(result.error)")
    }

    @Test func version() throws {
        let text = try Cfsoci.run(["version"], environment: environment)
        #expect(text.status == 0 && text.lines.contains("curl        not found"), "\(text.text)\(text.error)")
        let document = try Cfsoci.run(["version", "--json"], environment: environment).json()
        #expect(document["libraries"]?["curl"] == .null)
        #expect(document["libraries"]?["zstd"]?.string?.isEmpty == false)
    }
}
