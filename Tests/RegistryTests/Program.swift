import Glibc
import Testing

/// A child process of a test, ended by its id.
struct Program {
    let pid: pid_t

    /// The program's path in PATH; nil if it is not installed.
    static func find(_ name: String) -> String? {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin"
        return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    /// The output is written to `log`.
    init(_ arguments: [String], log: String) throws {
        let path = try #require(Program.find(arguments[0]))
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var list: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin"), strdup("HOME=/nonexistent"), nil]
        defer { for line in list + variables { free(line) } }
        var pid: pid_t = 0
        try #require(posix_spawn(&pid, path, &actions, nil, &list, &variables) == 0)
        self.pid = pid
    }

    /// The exit status; nil, and the program killed, after `seconds`.
    func wait(seconds: Int) -> Int32? {
        for _ in 0..<seconds * 100 {
            var status: Int32 = 0
            if waitpid(pid, &status, WNOHANG) == pid { return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f) }
            usleep(10_000)
        }
        stop()
        return nil
    }

    func stop() {
        kill(pid, SIGKILL)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
    }

    /// Runs to its end within 15 s.
    static func run(_ arguments: [String], log: String) throws {
        let status = try Program(arguments, log: log).wait(seconds: 15)
        try #require(status == 0, "\(arguments[0]) ended with \(status.map { "\($0)" } ?? "a timeout")")
    }
}
