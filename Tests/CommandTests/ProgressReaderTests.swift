import ComposefsJSON
import Glibc
import Testing

/// Readers of the progress that do not read.
@Suite struct ProgressReaderTests {
    /// The command completes, and a reader that comes late gets all events.
    @Test(arguments: ["pull", "export", "copy"]) func stoppedReader(command: String) throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/layout", layers: 3, fileSize: 4 << 20)
        let (repository, target) = (folder.path + "/repo", folder.path + "/target")
        try Cfsoci.succeed(["pull", "oci:" + folder.path + "/layout", "image", "--repo", repository])
        if command != "export" { try Cfsoci.succeed(["init", target, "--insecure"]) }
        let (arguments, check) =
            switch command {
            case "pull": (["pull", "oci:\(folder.path)/layout", "new", "--repo", target], "\(Cfsoci.binary) inspect new --repo \(target)")
            case "export": (["export", "image", "oci:\(target):new", "--repo", repository], "grep new \(target)/index.json")
            default: (["copy", "image", "new", "--from", repository, "--repo", target], "\(Cfsoci.binary) inspect new --repo \(target)")
            }

        // A full pipe.
        let pipe = folder.path + "/pipe"
        try #require(mkfifo(pipe, 0o600) == 0)
        let reader = open(pipe, O_RDWR | O_NONBLOCK)
        try #require(reader >= 0)
        defer { close(reader) }
        let filling = [UInt8](repeating: 10, count: 4096)
        while write(reader, filling, filling.count) > 0 {}
        while write(reader, filling, 1) > 0 {}

        let process = try start(Cfsoci.binary, arguments + ["--progress", "json"], output: folder.path + "/out", error: pipe)
        let deadline = now() + 30
        var isDone = false
        while !isDone, now() < deadline {
            usleep(50_000)
            isDone = try launch("sh", ["-c", check]).status == 0
        }
        #expect(isDone)
        var (told, status): ([UInt8], Int32?) = ([], nil)
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(reader, &buffer, buffer.count)
            if count > 0 {
                told += buffer[..<count]
            } else if status != nil {
                break
            } else {
                var state: Int32 = 0
                if waitpid(process, &state, WNOHANG) == process { status = state } else { usleep(5000) }
            }
        }
        #expect(status == 0)
        let events = try told.split(separator: 10).map { try JSONValue.parse(Array($0))["event"]?.string }
        #expect(events.last == "done")
        #expect(events.count { $0 == (command == "export" ? "layerSent" : "layerStored") } == 3)
    }
}
