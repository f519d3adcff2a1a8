internal import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsJSON
internal import ComposefsLinuxSystem
internal import Glibc

/// Runs `docker-credential-NAME`. `get` reads the server's name from standard input and writes a JSON object with the secret to standard
/// output; `store` reads such an object, and `erase` the server's name.
struct CredentialHelper {
    private static let oneAtATime = Monitor()
    private static let outputLimit = 1 << 20
    /// A helper may ask the user for a passphrase.
    private static let timeout = Duration.seconds(120)
    /// F_GETPIPE_SZ (linux/fcntl.h), which the Glibc module lacks.
    private static let getPipeSize: Int32 = 1032

    let name: String
    let environment: Environment

    /// Nil if the helper has no credentials for the server.
    func get(server: String) throws(RegistryError) -> RegistryCredentials? {
        let (status, output) = try ask("get", Array((server + "\n").utf8))
        guard status == 0 else {
            // The protocol reports missing credentials by this text only.
            if String(decoding: output, as: UTF8.self).contains("credentials not found") { return nil }
            throw error(.failed(action: "get", server: server, status: status))
        }
        // The error does not quote the output, which contains the secret.
        guard let answer = Self.credentials(in: output) else { throw error(.invalidOutput(server: server)) }
        return answer
    }

    /// The credentials in the output of `get`: nil if it is not in the form of the protocol, `.some(nil)` if there is no secret.
    static func credentials(in output: [UInt8]) -> RegistryCredentials?? {
        guard let value = try? JSONValue.parse(output), let user = value["Username"]?.string, let secret = value["Secret"]?.string else {
            return nil
        }
        if secret.isEmpty { return .some(nil) }
        return user == "<token>" ? .identityToken(secret) : .password(user: user, password: secret)
    }

    func store(server: String, user: String, password: String) throws(RegistryError) {
        let entry: JSONValue = ["ServerURL": .string(server), "Username": .string(user), "Secret": .string(password)]
        // The error does not quote the output, which may repeat the secret.
        let status = try ask("store", entry.compactBytes).status
        guard status == 0 else { throw error(.failed(action: "store", server: server, status: status)) }
    }

    /// False if the helper has no credentials for the server.
    func erase(server: String) throws(RegistryError) -> Bool {
        guard try get(server: server) != nil else { return false }
        let status = try ask("erase", Array(server.utf8)).status
        guard status == 0 else { throw error(.failed(action: "erase", server: server, status: status)) }
        return true
    }

    /// The program of the helper with that name.
    static func program(_ name: String) -> String { "docker-credential-" + name }

    private var program: String { Self.program(name) }

    private func error(_ fault: RegistryError.HelperFault) -> RegistryError { RegistryError(.credentialHelper(program: program, fault)) }

    private func ask(_ action: String, _ input: [UInt8]) throws(RegistryError) -> (status: Int32, output: [UInt8]) {
        guard !name.isEmpty, !name.utf8.contains(where: { $0 == UInt8(ascii: "/") || $0 < 0x21 || $0 > 0x7e }) else {
            throw error(.invalidName)
        }
        guard let path = search(program) else { throw error(.missing) }
        // Only one helper runs at a time: another one would inherit its pipe and keep it open.
        return try Self.oneAtATime.withLock { () throws(RegistryError) in try run(path, program, action, input: input) }
    }

    private func search(_ program: String) -> String? {
        for directory in (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":") where directory.hasPrefix("/") {
            let path = "\(directory)/\(program)"
            if access(path, X_OK) == 0 { return path }
        }
        return nil
    }

    private func run(_ path: String, _ program: String, _ action: String, input: [UInt8]) throws(RegistryError) -> (
        status: Int32, output: [UInt8]
    ) {
        func failure(_ operation: String, _ code: Int32) -> RegistryError { error(.system(operation: operation, Errno(rawValue: code))) }
        var toChild: (read: Int32, write: Int32) = (-1, -1)
        var fromChild: (read: Int32, write: Int32) = (-1, -1)
        defer { for raw in [toChild.read, toChild.write, fromChild.read, fromChild.write] where raw >= 0 { close(raw) } }
        func makePipe(_ ends: inout (read: Int32, write: Int32)) -> Bool {
            var raw: [Int32] = [-1, -1]
            guard pipe(&raw) == 0 else { return false }
            ends = (raw[0], raw[1])
            return raw.allSatisfy { fcntl($0, F_SETFD, FD_CLOEXEC) == 0 }
        }
        guard makePipe(&toChild), makePipe(&fromChild) else { throw failure("pipe", errno) }
        // The input is written before the helper runs: it fits into the pipe's buffer, and cannot cause SIGPIPE.
        let room = fcntl(toChild.write, Self.getPipeSize)
        guard input.count <= room else {
            throw error(.inputTooLarge(size: input.count, limit: Int(room)))
        }
        guard write(toChild.write, input, input.count) == input.count else { throw failure("write", errno) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild.read, 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild.write, 1)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        // exec does not close libcurl's connections.
        let closing = withUnsafeMutablePointer(to: &actions) { Host.closeDescriptors(from: 3, in: UnsafeMutableRawPointer($0)) }
        guard closing == 0 else { throw failure("start", closing) }
        // The helper must not inherit ignored or blocked signals.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup(action), nil]
        var variables: [UnsafeMutablePointer<CChar>?] = environment.lines.map { strdup($0) } + [nil]
        defer { for line in arguments + variables { free(line) } }
        var child: pid_t = 0
        let spawned = posix_spawn(&child, path, &actions, &attributes, &arguments, &variables)
        guard spawned == 0 else { throw failure("start", spawned) }
        for raw in [toChild.read, toChild.write, fromChild.write] { close(raw) }
        toChild = (-1, -1)
        fromChild.write = -1

        let deadline = MonotonicTime.now + Self.timeout
        let output = Self.readAll(fromChild.read, until: deadline)
        var status: Int32 = 0
        if output == nil { kill(child, SIGKILL) }
        while true {
            let result = waitpid(child, &status, output == nil ? 0 : WNOHANG)
            if result == child { break }
            if result < 0, errno != EINTR { throw failure("waitpid", errno) }
            if MonotonicTime.now >= deadline { kill(child, SIGKILL) }
            usleep(2000)
        }
        guard let output else {
            throw error(.noAnswer(Self.timeout))
        }
        let exitStatus = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
        return (exitStatus, output)
    }

    /// Nil if the deadline or the limit is exceeded.
    private static func readAll(_ raw: Int32, until deadline: MonotonicTime) -> [UInt8]? {
        var output: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let left = deadline - MonotonicTime.now
            guard left > .zero else { return nil }
            var request = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
            let ready = poll(&request, 1, Int32(clamping: left.milliseconds(atLeast: 1)))
            if ready <= 0 { continue }
            let count = read(raw, &chunk, chunk.count)
            if count == 0 { return output }
            if count < 0 {
                if errno == EINTR || errno == EAGAIN { continue }
                return nil
            }
            output += chunk[..<count]
            guard output.count <= outputLimit else { return nil }
        }
    }
}
