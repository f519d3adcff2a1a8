import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `login` and `logout` as scripts use them, with the distribution registry and skopeo.
@Suite(
    .enabled("docker-registry and skopeo are not all installed") {
        ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
    })
struct CommandLoginTests {
    private let folder: TemporaryFolder
    private var authFile: String { folder.path + "/auth.json" }

    init() throws { folder = try TemporaryFolder() }

    /// Runs a registry that requires user and password.
    private func withRegistry(_ body: (_ host: String) throws -> Void) throws {
        // crypt(3) of "open sesame" with bcrypt.
        try writeFile(
            folder.path + "/htpasswd", Array("aladdin:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n".utf8))
        var failures = 0
        while true {
            let port = Int.random(in: 20_000..<30_000)
            try writeFile(
                folder.path + "/config.yml",
                Array(
                    """
                    version: 0.1
                    log: {level: error}
                    storage: {filesystem: {rootdirectory: \(folder.path)/store}}
                    http: {addr: "127.0.0.1:\(port)"}
                    auth: {htpasswd: {realm: test, path: \(folder.path)/htpasswd}}
                    """.utf8))
            let pid = try start(
                "/usr/bin/docker-registry", ["serve", folder.path + "/config.yml"], output: folder.path + "/out",
                error: folder.path + "/err")
            defer {
                kill(pid, SIGKILL)
                _ = wait(for: pid)
            }
            if Loopback.waitUntilListening(UInt16(port)) { return try body("127.0.0.1:\(port)") }
            failures += 1
            try #require(failures < 5, "docker-registry does not start")
        }
    }

    private func run(_ arguments: [String], input: String? = nil) throws -> CommandResult {
        try Cfsoci.run(
            arguments, input: input.map { Array($0.utf8) },
            environment: ["REGISTRY_AUTH_FILE=" + authFile, "HOME=" + folder.path, "CONTAINERS_REGISTRIES_CONF=/dev/null"])
    }

    private func skopeo(_ arguments: [String]) throws -> CommandResult {
        try launch("/usr/bin/skopeo", arguments, environment: ["REGISTRY_AUTH_FILE=" + authFile, "HOME=" + folder.path])
    }

    @Test func skopeoReadsWhatLoginWrites() throws {
        try withRegistry { (host) throws in
            let wrong = try run(["login", host, "-u", "aladdin", "--password-stdin"], input: "close sesame\n")
            #expect(wrong.status == 4)
            #expect(wrong.output.isEmpty)
            #expect(wrong.error.contains("the given credentials are not accepted"))
            #expect(!wrong.error.contains("close sesame"))
            #expect(access(authFile, F_OK) != 0)

            let right = try run(["login", host, "-u", "aladdin", "--password-stdin"], input: "open sesame\n")
            #expect(right.status == 0)
            #expect(right.text == "Logged in to \(host) as aladdin\n")
            #expect(right.error == "stored in \(authFile)\n")
            #expect(try skopeo(["login", "--get-login", host]).text == "aladdin\n")
            #expect(try run(["login", "--get-login", host]).text == "aladdin\n")
            // The registry accepts skopeo's login: an unknown image gives another answer than an unknown user.
            let inspect = try skopeo(["inspect", "--tls-verify=false", "docker://\(host)/team/app:v1"])
            #expect(inspect.error.contains("manifest unknown"), "\(inspect.error)")
            let pull = try run(["pull", "\(host)/team/app:v1", "--repo", folder.path + "/repo"])
            #expect(pull.error.contains("404"), "\(pull.error)")
            // The stored credentials are valid, so there is no prompt.
            #expect(try run(["login", host]).text == "Logged in to \(host) as aladdin\n")

            #expect(try run(["logout", host]).text == "Logged out of \(host)\n")
            let again = try run(["logout", host])
            #expect(again.status == 1)
            #expect(again.error == "cfsoci: error: not logged in to \(host) in \(authFile)\n")
            #expect(try skopeo(["login", "--get-login", host]).status != 0)
        }
    }

    @Test func loginReadsWhatSkopeoWrites() throws {
        try withRegistry { (host) throws in
            #expect(try skopeo(["login", "--tls-verify=false", "-u", "aladdin", "-p", "open sesame", host]).status == 0)
            #expect(try run(["login", "--get-login", host]).text == "aladdin\n")
            #expect(try run(["login", host]).status == 0)
            #expect(try run(["logout", "--all"]).text == "Logged out of 1 registry\n")
            #expect(try run(["login", "--get-login", host]).status == 1)
        }
    }

    @Test func passwordsInArgumentsAreWarnedAbout() throws {
        try withRegistry { (host) throws in
            for arguments in [["-u", "aladdin", "-p", "open sesame"], ["--creds", "aladdin:open sesame"]] {
                let result = try run(["login", host] + arguments)
                #expect(result.status == 0)
                #expect(result.error.contains("can be seen by every user of this machine"))
                #expect(!result.error.contains("sesame"))
            }
        }
    }

    @Test func withoutTerminalNothingIsAskedFor() throws {
        try withRegistry { (host) throws in
            for arguments in [[host], [host, "-u", "aladdin"], [host, "--creds", "aladdin"]] {
                let result = try run(["login"] + arguments, input: "")
                #expect(result.status == 1)
                #expect(result.error.contains("there is no terminal to ask"), "\(result.error)")
            }
            let empty = try run(["login", host, "-u", "aladdin", "--password-stdin"], input: "")
            #expect(empty.error.contains("standard input contains no password"))
        }
    }

    @Test(arguments: [
        ["login", "a.example", "-p", "x"], ["login", "a.example", "--password-stdin"],
        ["login", "a.example", "-u", "a", "-p", "x", "--password-stdin"],
        ["login", "a.example", "-u", "a", "--creds", "a:b"], ["login", "a.example", "--creds", ":b"], ["logout", "--all", "a.example"],
    ])
    func usage(arguments: [String]) throws { #expect(try run(arguments, input: "").status == 64) }

    @Test func noRegistry() throws {
        let result = try run(["login", "a b", "-u", "x", "--password-stdin"], input: "x")
        #expect(result.status == 1)
        #expect(result.error.contains("is not a registry"))
    }
}
