import Glibc
import Testing

/// Pulls over bad links, killed pulls and simultaneous pulls: which bytes are transferred, and how often.
@Suite(.serialized) struct TransferTests {
    private static let megabyte: UInt64 = 1_000_000

    private func pull(_ server: LayoutServer, _ repository: String, _ more: [String] = [], output: String) throws -> pid_t {
        try start(
            Cfsoci.binary, ["pull", server.reference] + more + ["--repo", repository], output: output + ".out", error: output + ".err")
    }

    private func total(_ sent: [String: UInt64]) -> UInt64 { sent.values.reduce(0, +) }

    private func expectClean(_ repository: String) throws {
        let report = try Cfsoci.run(["fsck", "--deep", "--repo", repository])
        #expect(report.status == 0, "\(report.text)\(report.error)")
    }

    /// 400 MB over a link that breaks every 20 MB: by ending, or by tearing down in that moment what is under way. What the server's kernel has
    /// accepted counts as sent, whether the client has read it by then or not.
    @Test(arguments: [false, true]) func breakingLink(tearsDown: Bool) throws {
        let folder = try TemporaryFolder()
        let sizes = try writeRandomLayout(folder.path + "/layout", layers: 4, fileSize: 100 << 20)
        let server = try LayoutServer(
            layout: folder.path + "/layout", .init(breaksEvery: 20 * Self.megabyte, tearsDown: tearsDown))
        defer { server.stop() }
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let result = try Cfsoci.run(["pull", server.reference, "t", "--repo", repository])
        #expect(result.status == 0, "\(result.error)")
        let (size, sent) = (total(sizes), total(server.sent))
        #expect(server.breaks >= 20)
        #expect(sent >= size && Double(sent) < Double(size) * 1.05, "\(sent) bytes were sent for \(size)")
        // Every request except a blob's first one continues inside it.
        let again = Dictionary(grouping: server.requests, by: \.blob).values.flatMap { $0.dropFirst() }
        #expect(again.count >= 20 && again.allSatisfy { $0.offset > 0 })
        try expectClean(repository)
    }

    /// Data that was sent but not used: at most one buffer of each active layer, and a little in the kernel.
    private static let lostByKill: UInt64 = (256 + 192) << 10

    @Test func killed() throws {
        let folder = try TemporaryFolder()
        let sizes = try writeRandomLayout(folder.path + "/layout", layers: 3, fileSize: 12 << 20)
        // Slower than the client, so that sent data has been read.
        let server = try LayoutServer(layout: folder.path + "/layout", .init(rate: 8_000_000))
        defer { server.stop() }
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        var kills: UInt64 = 0
        for fraction in [0.02, 0.15, 0.3, 0.07, 0.25, 0.4, 0.5, 0.1] {
            let before = total(server.sent)
            let pid = try pull(server, repository, ["t", "--jobs", "2"], output: folder.path + "/pull")
            let deadline = now() + 30
            while Double(total(server.sent) - before) < fraction * 12_000_000, now() < deadline { usleep(5000) }
            kill(pid, SIGKILL)
            if wait(for: pid) != 0 { kills += 1 }
            try #expect(Cfsoci.run(["fsck", "--repo", repository]).status == 0)
        }
        #expect(kills == 8)
        let result = try Cfsoci.run(["pull", server.reference, "t", "--jobs", "2", "--repo", repository])
        #expect(result.status == 0, "\(result.error)")
        let (size, sent) = (total(sizes), total(server.sent))
        #expect(sent >= size && sent <= size + kills * 2 * Self.lostByKill, "\(sent) bytes were sent for \(size) with \(kills) kills")
        #expect(server.requests.contains { $0.offset > 0 })
        try expectClean(repository)
        // No partial blob remains.
        #expect(!fileList(repository).contains { $0.hasPrefix(".staging") })
    }

    /// Two processes pull the same image into one repository, while garbage collections try to run.
    @Test func twoAtOnce() throws {
        let folder = try TemporaryFolder()
        let sizes = try writeRandomLayout(folder.path + "/layout", layers: 5, fileSize: 4 << 20)
        let server = try LayoutServer(layout: folder.path + "/layout", .init(rate: 8_000_000))
        defer { server.stop() }
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let pids = try ["one", "two"].map { try pull(server, repository, [$0], output: folder.path + "/" + $0) }
        usleep(300_000)
        let collector = try start(
            Cfsoci.binary, ["gc", "--repo", repository], output: folder.path + "/gc.out", error: folder.path + "/gc.err")
        for pid in pids { #expect(wait(for: pid) == 0) }
        #expect(wait(for: collector) == 0)
        #expect(server.sent == sizes)
        try expectClean(repository)
        let ids = try ["one", "two"].map { try Cfsoci.succeed(["compute-id", $0, "--repo", repository]).text }
        #expect(ids[0] == ids[1])
        // The first pull's tag is removed while the second pull runs: nothing that the second one reuses may be removed.
        try Cfsoci.succeed(["untag", "two", "--repo", repository])
        let again = try pull(server, repository, ["three"], output: folder.path + "/three")
        _ = try Cfsoci.run(["untag", "one", "--repo", repository])
        try Cfsoci.succeed(["gc", "--repo", repository])
        #expect(wait(for: again) == 0)
        try expectClean(repository)
        #expect(try Cfsoci.succeed(["compute-id", "three", "--repo", repository]).text == ids[0])
    }

    /// Two processes: the one that is ahead is killed, and the other one continues from its partial blobs.
    @Test func oneOfTwoIsKilled() throws {
        let folder = try TemporaryFolder()
        let sizes = try writeRandomLayout(folder.path + "/layout", layers: 2, fileSize: 12 << 20)
        let server = try LayoutServer(layout: folder.path + "/layout", .init(rate: 8_000_000))
        defer { server.stop() }
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let first = try pull(server, repository, ["one", "--jobs", "2"], output: folder.path + "/one")
        while total(server.sent) < 2_000_000 { usleep(5000) }
        let second = try pull(server, repository, ["two", "--jobs", "2", "--progress", "json"], output: folder.path + "/two")
        let deadline = now() + 20
        while try !String(decoding: readFile(folder.path + "/two.err"), as: UTF8.self).contains("layerWaiting"), now() < deadline {
            usleep(5000)
        }
        while total(server.sent) < 12_000_000, now() < deadline { usleep(5000) }
        kill(first, SIGKILL)
        #expect(wait(for: first) == 128 + SIGKILL)
        #expect(wait(for: second) == 0)
        let (size, sent) = (total(sizes), total(server.sent))
        // On a busy machine the client lags, and a network buffer of 256 KiB is lost as well.
        #expect(sent >= size && sent <= size + 2 * (256 << 10 + Self.lostByKill), "\(sent) bytes were sent for \(size)")
        try expectClean(repository)
    }
}
