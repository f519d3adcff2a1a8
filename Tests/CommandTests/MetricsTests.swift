import ComposefsJSON
import Testing

@testable import ComposefsCommands

/// What `metrics` prints, and what it reads of the notes of systemd's units.
@Suite struct MetricsTests {
    /// Every line is a comment or a sample of the text format; values are those of `df` and `images`.
    @Test func figures() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "u"])
        let state = store.folder.path + "/state"
        try mustShell(#"mkdir "$1"; echo 100 103 0 > "$1/fsck"; echo 200 201 TERM > "$1/prune"; echo 1 > "$1/pull""#, [state])
        let lines = try store.succeed(["metrics", "--state", state]).lines
        var samples: [String: String] = [:]
        for line in lines where !line.hasPrefix("# ") {
            let sides = line.split(separator: " ")
            #expect(sides.count == 2 && Double(sides[1]) != nil && line.hasPrefix("cfsoci_"), "\(line)")
            #expect(samples.updateValue(String(sides[1]), forKey: String(sides[0])) == nil, "\(line)")
        }
        let usage = try store.succeed(["df", "--json"]).json()
        for kind in ["objects", "streams", "images"] {
            #expect(samples["cfsoci_repository_files{kind=\"\(kind)\"}"] == usage[kind]?["count"]?.int64.map { "\($0)" })
            #expect(samples["cfsoci_repository_bytes{kind=\"\(kind)\"}"] == usage[kind]?["diskBytes"]?.int64.map { "\($0)" })
        }
        #expect(samples["cfsoci_images"] == "2" && samples["cfsoci_unreadable_images"] == "0")
        #expect(samples["cfsoci_last_run_timestamp_seconds{job=\"fsck\"}"] == "103")
        #expect(samples["cfsoci_last_run_duration_seconds{job=\"fsck\"}"] == "3")
        #expect(samples["cfsoci_last_run_exit_status{job=\"fsck\"}"] == "0")
        #expect(samples["cfsoci_last_run_exit_status{job=\"prune\"}"] == "-1")
        #expect(!samples.keys.contains { $0.contains("pull") })
        // Each kind is described once, before its samples.
        let described = lines.filter { $0.hasPrefix("# TYPE ") }
        #expect(Set(described).count == described.count && described.allSatisfy { $0.hasSuffix(" gauge") })
        #expect(try store.succeed(["metrics", "--state", "/nowhere"]).lines.allSatisfy { !$0.contains("last_run") })
    }

    @Test(arguments: ["", "1", "1 2", "a 2 0", "5 2 0", "-1 2 0", "1 2 0 4", "99999999999999999999 2 0"])
    func incompleteNotes(note: String) { #expect(LastRun(job: "fsck", note: note) == nil) }
}
