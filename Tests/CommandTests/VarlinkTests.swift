import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import Glibc
import Testing

@testable import ComposefsCommands

/// `cfsoci varlink`: its socket, activation, and its end. The methods have tests of their own, in VarlinkServiceTests.
@Suite struct VarlinkTests {
    private static let client = Fixtures.folder + "/varlink.py"
    private static let image = "oci:" + Fixtures.folder + "/corpus/media/oci-gzip:latest"

    /// A service that is ended with the value.
    private final class Service {
        let folder: TemporaryFolder
        var socket: String { folder.path + "/socket" }
        private var process: pid_t?

        init(_ properties: String = "", before: (String) throws -> Void = { _ in }) throws {
            folder = try TemporaryFolder()
            let path = folder.path + "/socket"
            try before(path)
            process = try start(
                Cfsoci.binary, ["varlink", "--address", "unix:" + path + properties], output: folder.path + "/out",
                error: folder.path + "/err")
            for _ in 0..<400 {
                if answers(path) { return }
                usleep(25_000)
            }
            throw RunFailure(description: "no service answers: \(error)")
        }

        private func answers(_ path: String) -> Bool {
            let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            return withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
                }
            }
        }

        /// The exit status after a signal.
        func end(_ signal: Int32 = SIGTERM) -> Int32? {
            guard let process else { return nil }
            self.process = nil
            kill(process, signal)
            return wait(for: process)
        }

        var error: String { (try? readFile(folder.path + "/err")).map { String(decoding: $0, as: UTF8.self) } ?? "" }

        deinit { _ = end(SIGKILL) }
    }

    private static func lines(_ calls: [JSONValue]) -> [UInt8] { calls.flatMap { $0.compactBytes + [0x0a] } }

    /// Calls that show that the service works: with the repository of the folder, and the image of the corpus in it.
    private static func calls(_ repository: String) -> [JSONValue] {
        [
            ["method": "org.varlink.service.GetInfo"],
            ["method": "org.composefs.Repository.InitRepository", "parameters": ["path": .string(repository), "insecure": true]],
            ["method": "org.composefs.Repository.OpenRepository", "parameters": ["path": .string(repository)]],
            [
                "method": "org.composefs.Oci.Pull",
                "parameters": [
                    "handle": "HANDLE", "image": .string(image), "name": "image", "local_fetch": "disabled", "bootable": false,
                ], "more": true,
            ],
            ["method": "org.composefs.Oci.Tag", "parameters": ["handle": "HANDLE"], "oneway": true],
            ["method": "org.composefs.Oci.ListImages", "parameters": ["handle": "HANDLE"]],
            ["method": "org.composefs.Oci.Nothing"],
        ]
    }

    /// What the calls must have been answered.
    private func check(_ lines: [String], _ repository: String) throws {
        let replies = try lines.map { try JSONValue.parse(Array($0.utf8)) }
        #expect(replies.first?["parameters"]?["version"] == .string(Version.text))
        #expect(replies.count > 8 && replies.filter { $0["continues"] == true }.count > 2)
        #expect(replies.last == ["error": "org.varlink.service.MethodNotFound", "parameters": ["method": "org.composefs.Oci.Nothing"]])
        let list = try #require(replies.dropLast().last?["parameters"]?["images"]?[0])
        let same = try #require(try Cfsoci.succeed(["images", "--json", "--repo", repository]).json()["images"]?[0])
        #expect(list["name"] == "image" && list["name"] == same["name"])
        #expect(list["manifest_digest"] == "sha256:d36c10775d2103bae4b4065ce8493e6041f066143b3f9af7ef09a8d66a903580")
        #expect(list["architecture"] == same["architecture"] && list["layer_count"] == same["layerCount"])
    }

    @Test func address() throws {
        let service = try Service()
        let repository = service.folder.path + "/repository"
        var status = stat()
        #expect(lstat(service.socket, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK && status.st_mode & 0o777 == 0o600)
        let result = try launch("python3", [Self.client, "connect", service.socket], input: Self.lines(Self.calls(repository)))
        #expect(result.status == 0, "\(result.error)")
        try check(result.lines, repository)
        // Another service does not take the socket away.
        let second = try Cfsoci.run(["varlink", "--address", service.socket])
        #expect(second.status == 1 && second.error.contains("another process serves there"), "\(second.error)")
        #expect(service.end() == 0)
        #expect(lstat(service.socket, &status) != 0, "the socket is left")
        #expect(service.error.isEmpty, "\(service.error)")
    }

    @Test(arguments: [SIGINT, SIGHUP])
    func signals(signal: Int32) throws {
        let service = try Service()
        #expect(service.end(signal) == 0)
        var status = stat()
        #expect(lstat(service.socket, &status) != 0)
    }

    /// Wider permissions than the umask allows, if they are asked for.
    @Test func mode() throws {
        let service = try Service(";mode=0666")
        var status = stat()
        #expect(lstat(service.socket, &status) == 0 && status.st_mode & 0o777 == 0o666)
        #expect(service.end() == 0)
    }

    /// A socket that a killed service has left is replaced; another file is not.
    @Test func staleSocket() throws {
        let old = try Service()
        #expect(old.end(SIGKILL) == 128 + SIGKILL)
        var status = stat()
        #expect(lstat(old.socket, &status) == 0)
        let new = try Service { path in
            #expect(rename(old.socket, path) == 0)
        }
        let result = try launch(
            "python3", [Self.client, "connect", new.socket], input: Self.lines([["method": "org.varlink.service.GetInfo"]]))
        #expect(result.status == 0 && result.lines.count == 1, "\(result.error)")
        #expect(new.end() == 0)

        let folder = try TemporaryFolder()
        let path = folder.path + "/file"
        try writeFile(path, Array("precious".utf8))
        let refused = try Cfsoci.run(["varlink", "--address", path])
        #expect(refused.status == 1 && refused.error.contains("there is a file that is no socket"), "\(refused.error)")
        #expect(try readFile(path) == Array("precious".utf8))
        // What a link leads to is not looked at.
        #expect(symlink(path, folder.path + "/link") == 0)
        #expect(try Cfsoci.run(["varlink", "--address", folder.path + "/link"]).status == 1)
        #expect(try readFile(path) == Array("precious".utf8))
    }

    // MARK: Activation

    @Test(arguments: ["listening", "connected"], ["", "varlink", "other"])
    func activation(kind: String, name: String) throws {
        let folder = try TemporaryFolder()
        let repository = folder.path + "/repository"
        let arguments = [Self.client, kind] + (name.isEmpty ? [] : [name]) + ["--", Cfsoci.binary, "varlink"]
        let result = try launch("python3", arguments, input: Self.lines(Self.calls(repository)))
        #expect(result.status == 0, "\(result.error)")
        #expect(result.lines.last == "0")
        try check(result.lines.dropLast(), repository)
    }

    /// Variables for another process, and descriptors that are no sockets.
    @Test func wrongActivation() throws {
        let other = try Cfsoci.run(["varlink"], environment: ["LISTEN_PID=1", "LISTEN_FDS=1"])
        #expect(other.status == 64 && other.error.contains("name a socket with --address"), "\(other.error)")
        let file = try shell(
            #"LISTEN_PID=$BASHPID LISTEN_FDS=1 exec "$CFSOCI" varlink 3< /dev/null"#)
        #expect(file.status == 1 && file.error.contains("no stream socket of this machine"), "\(file.error)")
        let several = try shell(
            #"LISTEN_PID=$BASHPID LISTEN_FDS=2 exec "$CFSOCI" varlink 3< /dev/null 4< /dev/null"#)
        #expect(several.status == 1 && several.error.contains("2 sockets were passed"), "\(several.error)")
        let both = try launch(
            "python3", [Self.client, "connected", "--", Cfsoci.binary, "varlink", "--address", "/run/x"], input: [])
        #expect(both.lines.last == "1" && both.error.contains("--address has no meaning"), "\(both.error)")
    }

    @Test func usage() throws {
        for arguments in [
            [], ["--address", "unix:@abstract"], ["--address", "tcp:127.0.0.1:1"], ["--address", "here"],
            ["--address", "/run/x", "--repo", "/r"],
        ] {
            let result = try Cfsoci.run(["varlink"] + arguments)
            #expect(result.status == 64, "\(arguments): \(result.status) \(result.error)")
        }
        let long = try Cfsoci.run(["varlink", "--address", "/tmp/" + String(repeating: "x", count: 110)])
        #expect(long.status == 1 && long.error.contains("at most 107 bytes"), "\(long.error)")
        let missing = try Cfsoci.run(["varlink", "--address", "/nothing/here/socket"])
        #expect(missing.status == 1 && missing.error.contains("No such file or directory"), "\(missing.error)")
    }

    /// systemd's own client, which Debian has since 13. The protocol is tested above in any case.
    @Test func varlinkctl() throws {
        guard try shell("command -v varlinkctl").status == 0 else { return }
        let service = try Service()
        let repository = service.folder.path + "/repository"
        let text = try mustShell(
            #"""
            varlinkctl info "$1"
            for interface in org.composefs.Repository org.composefs.Oci org.varlink.service; do
                varlinkctl introspect "$1" $interface | tee "$3"
                varlinkctl validate-idl "$3" > /dev/null
            done
            varlinkctl call "$1" org.composefs.Repository.InitRepository "{\"path\":\"$2\",\"insecure\":true}"
            # A connection to a process of its own.
            printf '#!/bin/sh\nexec "%s" varlink\n' "$CFSOCI" > "$3"
            chmod 755 "$3"
            varlinkctl call "exec:$3" org.composefs.Repository.EnsureRepository "{\"path\":\"$2\",\"insecure\":true}"
            """#, [service.socket, repository, service.folder.path + "/file"])
        #expect(text.contains("Opened"))
        #expect(text.contains("method OpenRepository(") && text.contains("method FinalizeImage("))
        #expect(service.end() == 0)
    }
}
