import Glibc
import Testing

/// Images that exceed the available space.
@Suite struct SpaceTests {
    /// 256 files of 1 MiB with a compression ratio of 200:1: refused at the limit, with bounded memory and bounded stored data.
    @Test func gzipBomb() throws {
        let folder = try TemporaryFolder()
        let members = (0..<256).map { TarMember(name: "file\($0)", content: [UInt8](repeating: UInt8($0), count: 1 << 20)) }
        try LayoutBuilder(layers: [tarArchive(members)], compressor: "gzip").write(to: folder.path + "/layout")
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let arguments = ["pull", "oci:" + folder.path + "/layout", "t", "--repo", repository, "--max-layer-size"]
        let result = try launch("sh", ["-c", "ulimit -v 400000; exec \"$0\" \"$@\"", Cfsoci.binary] + arguments + ["16M"])
        #expect(result.status == 1)
        #expect(result.error.contains("the layer has more than 16777216 bytes; the limit is 16777216, --max-layer-size raises it"))
        let kibibytes = try launch("du", ["-sk", repository]).text.prefix { $0 != "\t" }
        #expect(try #require(Int(kibibytes)) < 20 << 10)
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
        try Cfsoci.succeed(["gc", "--repo", repository])
        #expect(fileList(repository).filter { $0.hasPrefix("objects/") && $0.count > "objects/00".count }.isEmpty)
        // Memory is also bounded if the limit is higher.
        let allowed = try launch("sh", ["-c", "ulimit -v 400000; exec \"$0\" \"$@\"", Cfsoci.binary] + arguments + ["1G"])
        #expect(allowed.status == 0, "\(allowed.error)")
    }

    @Test(.enabled(if: geteuid() == 0))
    func smallFileSystem() throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/layout", layers: 2, fileSize: 6 << 20)
        let mount = folder.path + "/mount"
        #expect(mkdir(mount, 0o755) == 0)
        for (size, text) in [
            ("size=8m", "mount/repo: the 2 missing layers need at least 12.00 MiB, and about 31.21 MiB unpacked; "),
            ("nr_inodes=8", "the image needs at least "),
        ] {
            guard try launch("mount", ["-t", "tmpfs", "-o", size, "tmpfs", mount]).status == 0 else { return }
            defer { _ = try? launch("umount", [mount]) }
            let repository = mount + "/repo"
            try Cfsoci.succeed(["init", repository, "--insecure"])
            let arguments = ["pull", "oci:" + folder.path + "/layout", "t", "--repo", repository]
            let result = try Cfsoci.run(arguments)
            #expect(result.status == 7)
            #expect(result.error.contains(text) && result.error.contains("--no-space-check"), "\(result.error)")
            let tried = try Cfsoci.run(arguments + ["--no-space-check"])
            #expect(tried.status == 7 && tried.error.contains("No space left on device"), "\(tried.error)")
        }
    }

    /// If no more threads can be started, a pull works with those that it has, or reports an error; it never waits forever.
    @Test(.enabled(if: geteuid() == 0 && hasProgram("setpriv")))
    func fewThreads() throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/layout", layers: 2, fileSize: 8 << 20)
        let ends = try mustShell(
            """
            cd "$1"; cp "$CFSOCI" cfsoci; chmod -R a+rX .; chmod a+x .; mkdir -m 777 own
            for disk in "" "--disk flat --disk layered"; do for count in 2 3 4 5 6 12; do
                rm -rf own/repo
                "$CFSOCI" init own/repo --insecure -q >/dev/null
                chown -R 54321:54321 own/repo
                status=0
                setpriv --reuid 54321 --regid 54321 --clear-groups bash -c 'ulimit -u "$0"; exec "$@"' "$count" \
                    timeout -s KILL 60 ./cfsoci pull oci:layout t --repo own/repo $disk >out 2>&1 || status=$?
                echo "$status $(tail -n 1 out)"
            done; done
            """, [folder.path]
        ).split(separator: "\n")
        #expect(ends.count == 12)
        for end in ends {
            #expect(
                end.hasPrefix("0 objects  2 new") || end.hasPrefix("1 cfsoci: error: ") && end.contains("Resource temporarily"), "\(end)")
        }
        #expect(ends.last?.hasPrefix("0 ") == true)
    }

    /// Kept blobs need space in addition to the layers.
    @Test(.enabled(if: geteuid() == 0))
    func keptBlobs() throws {
        let folder = try TemporaryFolder()
        var state: UInt64 = 7
        let noise = (0..<(6 << 20)).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
        try LayoutBuilder(layers: [tarArchive([TarMember(name: "noise", content: noise)])], compressor: "gzip").write(
            to: folder.path + "/layout")
        let mount = folder.path + "/mount"
        #expect(mkdir(mount, 0o755) == 0)
        guard try launch("mount", ["-t", "tmpfs", "-o", "size=10m", "tmpfs", mount]).status == 0 else { return }
        defer { _ = try? launch("umount", [mount]) }
        let repository = mount + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let arguments = ["pull", "oci:" + folder.path + "/layout", "t", "--repo", repository]
        let result = try Cfsoci.run(arguments + ["--keep-blobs"])
        #expect(result.status == 7)
        #expect(
            result.error.contains("the 1 missing layers need at least 12.00 MiB, and about 21.60 MiB unpacked"), "\(result.error)")
        try Cfsoci.succeed(arguments)
        // Only the blob is missing now, and there is not enough space for it.
        let blob = try Cfsoci.run(arguments + ["--keep-blobs"])
        #expect(blob.status == 7)
        #expect(blob.error.contains("the 1 missing layers need at least 6.00 MiB, and about 6.00 MiB unpacked"), "\(blob.error)")
    }

    @Test func options() throws {
        for (option, value) in [
            ("--max-layer-size", "5X"), ("--max-layer-size", "+5"), ("--max-layer-size", "99999999999G"), ("--keep-partial", "-1"),
            ("--retries", "-1"), ("--jobs", "0"), ("--timeout", "0"), ("--timeout", "nan"), ("--timeout", "1e9"),
            ("--max-layer-entries", "x"),
        ] {
            let result = try Cfsoci.run(["pull", "oci:/nowhere", "--repo", "/nowhere", option + "=" + value])
            #expect(result.status == 64 && result.error.contains(option), "\(option) \(value): \(result.status) \(result.error)")
        }
    }
}
