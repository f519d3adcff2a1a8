@preconcurrency import Glibc
import Testing

// stdlib.h declares these two only if _XOPEN_SOURCE is defined.
@_silgen_name("unlockpt") private func unlockpt(_ descriptor: Int32) -> Int32
@_silgen_name("ptsname") private func ptsname(_ descriptor: Int32) -> UnsafeMutablePointer<CChar>?

/// A password prompt that is interrupted by a signal.
@Suite struct PasswordPromptTests {
    /// A terminal and its modes.
    private final class Terminal {
        let master: Int32
        let path: String
        /// Keeps the terminal open, with its modes, after the program closed it.
        private let slave: Int32

        init() throws {
            master = open("/dev/ptmx", O_RDWR | O_NOCTTY)
            try #require(master >= 0 && unlockpt(master) == 0)
            path = String(cString: try #require(ptsname(master)))
            slave = open(path, O_RDWR | O_NOCTTY)
            try #require(slave >= 0)
        }

        deinit {
            close(slave)
            close(master)
        }

        var flags: tcflag_t {
            var modes = termios()
            return tcgetattr(slave, &modes) == 0 ? modes.c_lflag : 0
        }

        var showsInput: Bool { flags & tcflag_t(ECHO) != 0 }

        func waits(until isSo: Bool) -> Bool {
            for _ in 0..<600 {
                if showsInput == isSo { return true }
                usleep(50_000)
            }
            return false
        }

        func type(_ text: String) { _ = write(master, text, text.utf8.count) }
    }

    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// No server listens at port 1, so the input is not used.
    private func ask(at terminal: Terminal) throws -> pid_t {
        // In a new process group, as in a shell: members of an orphaned group cannot be stopped.
        let command =
            "exec \(Cfsoci.binary) login --authfile \(folder.path)/auth.json --username me 127.0.0.1:1 <\(terminal.path) 2>\(terminal.path)"
        return try start("/bin/sh", ["-c", command], output: folder.path + "/out", error: folder.path + "/err", inOwnGroup: true)
    }

    @Test(arguments: [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1]) func endingSignals(number: Int32) throws {
        let terminal = try Terminal()
        let before = terminal.flags
        let pid = try ask(at: terminal)
        #expect(terminal.waits(until: false))
        #expect(kill(pid, number) == 0)
        #expect(wait(for: pid) == 128 + number)
        #expect(terminal.flags == before && terminal.showsInput)
    }

    /// Stopping the program restores the terminal, and continuing it hides the input again.
    @Test func stopped() throws {
        let terminal = try Terminal()
        let before = terminal.flags
        let pid = try ask(at: terminal)
        #expect(terminal.waits(until: false))
        #expect(kill(pid, SIGTSTP) == 0)
        var status: Int32 = 0
        var answer: pid_t = 0
        for _ in 0..<600 where answer == 0 {
            answer = waitpid(pid, &status, WUNTRACED | WNOHANG)
            if answer == 0 { usleep(50_000) }
        }
        try #require(answer == pid && status & 0xff == 0x7f, "\(status)")
        #expect(terminal.flags == before)
        #expect(kill(pid, SIGCONT) == 0)
        #expect(terminal.waits(until: false))
        terminal.type("secret\n")
        #expect(wait(for: pid) == 5)
        #expect(terminal.flags == before)
    }

    /// The keys that send signals still work.
    @Test func keys() throws {
        let terminal = try Terminal()
        let before = terminal.flags
        let pid = try ask(at: terminal)
        #expect(terminal.waits(until: false))
        terminal.type("\u{3}")
        #expect(wait(for: pid) == 130)
        #expect(terminal.flags == before)
    }
}
