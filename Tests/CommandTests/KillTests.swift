import Glibc
import Testing

/// After a killed pull, the next pull completes the store.
@Suite(.serialized) struct KillTests {
    @Test func killedAtManyPoints() throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        try LayoutBuilder.large(layers: 3, filesPerLayer: 300).write(to: layout)

        func pull(_ repository: String) throws -> pid_t {
            try start(
                Cfsoci.binary, ["pull", "oci:" + layout, "t", "--repo", repository], output: folder.path + "/out",
                error: folder.path + "/err")
        }
        func settled(_ repository: String) throws -> [String] {
            try Cfsoci.succeed(["gc", "--repo", repository])
            // Empty fan-out directories of removed objects may remain.
            return fileList(repository).filter { !($0.hasPrefix("objects/") && $0.count == "objects/00".count) }
        }

        let whole = folder.path + "/whole"
        try Cfsoci.succeed(["init", whole, "--insecure"])
        let begun = now()
        #expect(wait(for: try pull(whole)) == 0)
        let duration = now() - begun
        let expected = try settled(whole)
        let identifier = try Cfsoci.succeed(["compute-id", "t", "--repo", whole]).text

        // Times spread evenly over the run, in an order that covers all of it early. A pull that ended before the signal does not count.
        var span = duration
        var interrupted = 0
        var attempts = 0
        while interrupted < 50, attempts < 200 {
            let fraction = (Double(attempts) * 0.618_033_988_75).truncatingRemainder(dividingBy: 1)
            attempts += 1
            let repository = folder.path + "/killed"
            try Cfsoci.succeed(["init", repository, "--insecure"])
            let pid = try pull(repository)
            usleep(UInt32(span * fraction * 1e6))
            kill(pid, SIGKILL)
            guard wait(for: pid) != 0 else {
                span *= 0.95
                removeTree(repository)
                continue
            }
            interrupted += 1
            let report = try Cfsoci.run(["fsck", "--repo", repository])
            #expect(report.status == 0, "after a kill at \(fraction) of the run: \(report.text)\(report.error)")
            try Cfsoci.succeed(["pull", "oci:" + layout, "t", "--repo", repository])
            #expect(try Cfsoci.succeed(["compute-id", "t", "--repo", repository]).text == identifier)
            #expect(try settled(repository) == expected, "stray or missing files after a kill at \(fraction) of the run")
            removeTree(repository)
        }
        #expect(interrupted == 50, "only \(interrupted) of \(attempts) kills came in time")
    }

    /// Layers that were finished before the kill are not read again.
    @Test func finishedLayersAreKept() throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        let builder = LayoutBuilder.large(layers: 2, filesPerLayer: 50)
        try builder.write(to: layout)
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        // The second layer's blob is truncated: the first layer is stored, and the pull fails.
        let blobs = fileList(layout).filter { $0.hasPrefix("blobs/") && $0.count > "blobs/sha256/".count }
        let second = try #require(try blobs.first { try readFile(layout + "/" + $0) == builder.layers[1] })
        try writeFile(layout + "/" + second, Array(builder.layers[1].dropLast(2000)))
        #expect(try Cfsoci.run(["pull", "oci:" + layout, "t", "--repo", repository]).status == 1)
        try writeFile(layout + "/" + second, builder.layers[1])
        let first = try #require(try blobs.first { try readFile(layout + "/" + $0) == builder.layers[0] })
        // The first layer's blob is removed: the next pull must not need it.
        unlink(layout + "/" + first)
        let result = try Cfsoci.succeed(["pull", "oci:" + layout, "t", "--repo", repository])
        #expect(result.lines.contains("layers  1 new + 1 present"), "\(result.text)")
        #expect(try Cfsoci.run(["fsck", "--deep", "--repo", repository]).status == 0)
    }
}
