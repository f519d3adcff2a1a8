import ComposefsOCI
import LinuxSystem
import Testing

/// The documentation's program does what the documentation says.
struct ExampleTests {
    static let source = checkout + "/Tests/ComposefsOCITests/Example.swift"
    static let article = checkout + "/Sources/ComposefsOCI/ComposefsOCI.docc/PullingAndMounting.md"

    @Test func articleShowsThisProgram() throws {
        let program = try readText(Self.source)
        let blocks = try readText(Self.article).components(between: "```swift\n", "```\n")
        #expect(blocks.first == program)
        let lines = program.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        #expect(lines.count < 40)
        #expect(lines.allSatisfy { $0.utf8.count <= 140 })
    }

    @Test func pullsAndInspects() async throws {
        let folder = try Folder()
        let repository = folder.path + "/some/where/repository"
        var said: [String] = []
        try await example([quickstart, repository.description]) { said.append($0) }
        #expect(said.prefix(2).sorted() == ["layer 1 is verified and stored", "layer 2 is verified and stored"])
        #expect(
            said.dropFirst(2) == [
                "\(quickstart) is sha256:\(Quickstart.manifest)", #"made for linux/amd64, runs ["/usr/bin/hello"]"#,
                "/bin", "/etc", "/home", "/run", "/tmp", "/usr", "/var",
            ])
        let store = try Store.open(repository)
        #expect(try store.images.tags().map(\.name) == [ByteString(quickstart)])
        #expect(try await store.check(nil, ImageCheckOptions(deep: true)).isClean)
    }

    @Test func mounts() async throws {
        try requireMounting()
        let folder = try Folder()
        let target = try folder.makeDirectory("target")
        defer { try? unmount(target, lazily: true) }
        var said: [String] = []
        try await example([quickstart, folder.path.description + "/repository", target.description]) { said.append($0) }
        #expect(said.last == "mounted at \(target)")
        #expect(try readText(target + "/etc/hostname") == "example-two\n")
        #expect(try readText(target + "/usr/bin/hello").hasPrefix("#!/bin/sh\n"))
        // Longer than what is kept in the image itself: it comes through the objects.
        #expect(try readText(target + "/usr/lib/table.txt").utf8.count > 64)
        let motd = try FileDescriptor.open(target, [.readOnly, .directory]).statusIfPresent(at: "etc/motd")
        #expect(motd == nil)
        try unmount(target)
    }

    @Test func tellsItsUsage() async throws {
        var said: [String] = []
        try await example([]) { said.append($0) }
        #expect(said == ["usage: example REFERENCE REPOSITORY [DIRECTORY]"])
    }
}

extension String {
    /// What stands between each pair of marks; each mark begins a line.
    func components(between begin: String, _ end: String) -> [String] {
        var found: [String] = []
        var lines: [Substring]?
        for line in split(separator: "\n", omittingEmptySubsequences: false) {
            if let open = lines {
                if line + "\n" == end {
                    found.append(open.map { $0 + "\n" }.joined())
                    lines = nil
                } else {
                    lines = open + [line]
                }
            } else if line + "\n" == begin {
                lines = []
            }
        }
        return found
    }
}
