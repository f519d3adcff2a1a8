import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// A terminal for a program: a separate tmux server.
private final class Terminal {
    private let socket: String

    init(_ folder: TemporaryFolder, width: Int, height: Int, _ command: String) throws {
        socket = folder.path + "/tmux"
        guard try launch("sh", ["-c", "command -v tmux"]).status == 0 else { try Test.cancel("no tmux") }
        let made = try launch(
            "tmux", ["-S", socket, "-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", "\(width)", "-y", "\(height)", command],
            environment: ["LC_ALL=C.UTF-8", "TERM=xterm-256color", "NO_COLOR="])
        guard made.status == 0 else { throw RunFailure(description: "tmux: \(made.error)") }
    }

    deinit { _ = try? launch("tmux", ["-S", socket, "kill-server"]) }

    private func tmux(_ arguments: [String]) throws -> String {
        let result = try launch("tmux", ["-S", socket] + arguments)
        guard result.status == 0 else { throw RunFailure(description: "tmux \(arguments): \(result.error)") }
        return result.text
    }

    func resize(_ width: Int, _ height: Int) throws {
        _ = try tmux(["resize-window", "-t", "t", "-x", "\(width)", "-y", "\(height)"])
    }

    func type(_ keys: String...) throws { _ = try tmux(["send-keys", "-t", "t"] + keys) }

    /// The visible lines and the history, without trailing spaces and empty lines at the end.
    func lines() throws -> [String] {
        var lines = try tmux(["capture-pane", "-p", "-S", "-", "-t", "t"]).split(separator: "\n", omittingEmptySubsequences: false)
            .map { line in String(line.reversed().drop { $0 == " " }.reversed()) }
        while lines.last == "" { lines.removeLast() }
        return lines
    }

    var showsCursor: Bool { get throws { try tmux(["display", "-p", "-t", "t", "#{cursor_flag}"]) == "1\n" } }

    /// Waits for the visible lines to satisfy a condition; the test fails if they never do.
    func lines(
        within seconds: Double = 30, until isWanted: ([String]) -> Bool, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> [String] {
        let end = now() + seconds
        while true {
            let seen = try lines()
            if isWanted(seen) { return seen }
            guard now() < end else {
                Issue.record("waited in vain: \(seen.joined(separator: "\n"))", sourceLocation: sourceLocation)
                return seen
            }
            usleep(50_000)
        }
    }
}

/// The progress display in a real terminal.
@Suite(.serialized) struct ProgressTerminalTests {
    private let folder: TemporaryFolder
    private let server: LayoutServer
    /// The digest prefixes of the layers, from bottom to top.
    private let names: [String]

    init() throws {
        folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        _ = try writeRandomLayout(layout, layers: 6, fileSize: 2 << 20)
        let index = try JSONValue.parse(readFile(layout + "/index.json"))
        let digest = try #require(index["manifests"]?[0]?["digest"]?.string)
        let manifest = try JSONValue.parse(readFile(layout + "/blobs/" + digest.replacing(":", with: "/")))
        names = (manifest["layers"]?.array ?? []).compactMap { $0["digest"]?.string?.dropFirst(7).prefix(12) }.map(String.init)
        server = try LayoutServer(layout: layout, .init(rate: 400_000))
        try Cfsoci.succeed(["init", folder.path + "/repo", "--insecure"])
    }

    private func pull(_ options: String = "") -> String {
        // The preceding lines show where the display begins; the following output shows that it was removed.
        "seq 12; \(Cfsoci.binary) pull \(server.reference) t --jobs 2 --repo \(folder.path)/repo \(options); echo status $?; sleep 60"
    }

    private static let before = (1...12).map { "\($0)" }[...]

    /// The preceding lines, one line per layer, and the total: nothing is duplicated or left over.
    private func isWhole(_ lines: [String]) -> Bool {
        lines.count == 19 && lines.prefix(12) == Self.before && zip(names, lines.dropFirst(12)).allSatisfy { $1.hasPrefix($0) }
            && lines[18].contains("iB/s")
    }

    @Test(arguments: [40, 80, 200]) func frame(width: Int) throws {
        defer { server.stop() }
        let terminal = try Terminal(folder, width: width, height: 24, pull())
        let lines = try terminal.lines(until: isWhole)
        #expect(lines.allSatisfy { $0.count < width })
        #expect(lines.count { $0.contains("%") } == 3)
        #expect(lines.count { $0.contains("queued, 2.0 MiB") } == 4)
        #expect(lines.contains { $0.contains("#") } == (width > 40))
        #expect(try !terminal.showsCursor)
        server.link.rate = nil
        let after = try terminal.lines { $0.last == "status 0" }
        #expect(after.prefix(12) == Self.before)
        #expect(after[12].hasPrefix("manifest  sha256:"))
        #expect(!after.contains { line in names.contains { line.hasPrefix($0) } || line.contains("%") })
        #expect(try terminal.showsCursor)
    }

    /// After every change of the window's size, the display is complete, and nothing of earlier ones remains.
    @Test func resizedMidWay() throws {
        defer { server.stop() }
        let terminal = try Terminal(folder, width: 120, height: 24, pull())
        _ = try terminal.lines(until: isWhole)
        for (width, height) in [(50, 24), (40, 24), (200, 24), (60, 20), (47, 30), (80, 24)] {
            try terminal.resize(width, height)
            // Wait until the program has noticed the change.
            usleep(300_000)
            let lines = try terminal.lines(until: isWhole)
            #expect(lines.allSatisfy { $0.count < width }, "\(width): \(lines.joined(separator: "\n"))")
        }
        // With too few rows: the active layers, and one line for the others.
        try terminal.resize(80, 5)
        usleep(300_000)
        let low = try terminal.lines { $0.count == 16 && $0[14].hasPrefix("layers: ") }
        #expect(low.prefix(12) == Self.before && low[14] == "layers: 4 queued" && low[15].hasPrefix("total "))
        try terminal.resize(80, 24)
        _ = try terminal.lines(until: isWhole)
    }

    @Test func interrupted() throws {
        defer { server.stop() }
        let terminal = try Terminal(folder, width: 80, height: 24, "bash -c 'trap true INT; \(pull())'")
        _ = try terminal.lines(until: isWhole)
        try terminal.type("C-c")
        let after = try terminal.lines { $0.last == "status 130" }
        #expect(after.prefix(12) == Self.before && after.count <= 14)
        #expect(after.dropFirst(12).dropLast().allSatisfy { $0 == "^C" })
        #expect(try terminal.showsCursor)
    }

    /// A message appears above the display and stays.
    @Test func failure() throws {
        defer { server.stop() }
        let terminal = try Terminal(folder, width: 80, height: 24, pull())
        _ = try terminal.lines(until: isWhole)
        server.stop()
        let after = try terminal.lines(within: 120) { $0.last == "status 5" }
        #expect(after.prefix(12) == Self.before && after[12].hasPrefix("cfsoci: error: layer "))
        #expect(!after.contains { line in names.contains { line.hasPrefix($0) } })
        #expect(try terminal.showsCursor)
    }

    /// Without cursor movement, progress is printed as lines.
    @Test func dumbTerminal() throws {
        defer { server.stop() }
        server.link.rate = nil
        let terminal = try Terminal(folder, width: 200, height: 40, "export TERM=dumb; " + pull())
        let lines = try terminal.lines { $0.last == "status 0" }
        #expect(lines[12] == "resolving " + server.reference)
        for (index, name) in names.enumerated() {
            #expect(lines.contains { $0.hasPrefix("layer \(index + 1) sha256:\(name)") && $0.hasSuffix(": stored") })
        }
    }

    // MARK: Without a terminal

    /// At most ten updates per second, and no colour if it is disabled.
    @Test func fewUpdates() throws {
        defer { server.stop() }
        server.link.rate = 2_000_000
        let begun = now()
        let result = try Cfsoci.run(
            ["pull", server.reference, "t", "--jobs", "6", "--repo", folder.path + "/repo", "--progress", "tty"],
            environment: ["NO_COLOR=1"])
        let seconds = now() - begun
        #expect(result.status == 0)
        let frames = result.error.split(separator: "total  ").count - 1
        #expect(frames >= 3 && Double(frames) <= seconds * 10 + 2, "\(frames) in \(seconds) s")
        #expect(!result.error.contains("\u{1b}[1m") && !result.error.contains("\u{1b}[2m"))
        #expect(result.error.hasSuffix("\u{1b}[J\r\u{1b}[?7h\u{1b}[?25h"))
    }

    @Test func ownDescriptor() throws {
        defer { server.stop() }
        server.link.rate = nil
        let lines = folder.path + "/lines"
        let command = "exec \(Cfsoci.binary) pull \(server.reference) t --repo \(folder.path)/repo --progress-fd 7 7>\(lines)"
        let result = try launch("sh", ["-c", command])
        #expect(result.status == 0 && result.error == "")
        let events = try readFile(lines).split(separator: 10).map { try JSONValue.parse(Array($0)) }
        #expect(events.prefix(2).compactMap { $0["event"]?.string } == ["schema", "resolving"] && events.last?["event"] == "done")
        #expect(events.count { $0["event"] == "layerStored" } == 6)
        for descriptor in ["7", "0", "99999"] {
            let refused = try Cfsoci.run(["pull", server.reference, "--progress-fd", descriptor, "--repo", folder.path + "/repo"])
            #expect(refused.status == 64 && refused.error.contains("--progress-fd \(descriptor)"))
        }
        let both = try Cfsoci.run(["pull", "x", "--progress-fd", "2", "--progress", "plain", "--repo", folder.path + "/repo"])
        #expect(both.status == 64)
    }

    /// A slow or stopped reader of the lines does not delay the pull.
    @Test func closedReader() throws {
        defer { server.stop() }
        server.link.rate = 4_000_000
        let command =
            "\(Cfsoci.binary) pull \(server.reference) t --repo \(folder.path)/repo --progress json 2>&1 >\(folder.path)/out | head -n 2"
        #expect(try launch("bash", ["-c", command]).text.hasPrefix("{\"event\":\"schema\",\"version\":1}\n{\"event\":\"resolving\""))
        #expect(String(decoding: try readFile(folder.path + "/out"), as: UTF8.self).hasPrefix("manifest  sha256:"))
    }

    /// The display appears long before any data arrives.
    @Test func firstProgress() throws {
        defer { server.stop() }
        server.link.rate = nil
        let command =
            "date +%s%N; \(Cfsoci.binary) pull \(server.reference) t --repo \(folder.path)/repo --progress tty 2>&1 >/dev/null"
            + " | (head -c 12 >/dev/null; date +%s%N)"
        // Subtract the time that this build takes to start and to refuse a reference.
        var (first, start) = (Int64.max, Int64.max)
        for _ in 0..<5 {
            for (text, isPull) in [
                (command, true), ("date +%s%N; \(Cfsoci.binary) pull https://x 2>&1 | (cat >/dev/null; date +%s%N)", false),
            ] {
                let times = try launch("sh", ["-c", text]).lines.compactMap { Int64($0) }
                try #require(times.count == 2)
                if isPull { first = min(first, times[1] - times[0]) } else { start = min(start, times[1] - times[0]) }
            }
        }
        #expect(first - start < 100_000_000, "\(first / 1_000_000) ms, \(start / 1_000_000) ms of them to start")
    }
}
