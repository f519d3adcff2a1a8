import ComposefsBytes
import ComposefsTestSupport
import Testing

@testable import ComposefsLinuxSystem

/// The walk without openat2(2) finds what the kernel finds.
struct PathResolutionTests {
    private static let names: [ByteString] = ["a", "b", "c", "a/a", "a/b", "a/c", "b/a", "b/b", "a/a/a", "a/a/b"]

    /// What an opened path leads to, or the error.
    private struct Answer: Equatable {
        var errno: Errno?
        var inode: UInt64?

        init(_ result: Int) throws {
            guard let file = Int32(exactly: result), file >= 0 else {
                errno = Errno(result: result)
                return
            }
            inode = try FileDescriptor(owning: file).status().inode
        }
    }

    @Test(arguments: 0..<40 as Range<UInt64>) func theKernelsAnswer(_ seed: UInt64) throws {
        try withScratch { scratch, path in
            var random = SplitMix(state: seed)
            try scratch.makeDirectory(at: "root")
            try scratch.open(at: "file", [.writeOnly, .create], mode: 0o644).writeAll(Array("outside".utf8))
            let targets: [ByteString] = [
                "a", "b", "./c", "../a", "../b/../a", "../../file", "/a/b", "/..", "/../a", "..", ".", "a/", "/", path + "/file",
                "../../..",
            ]
            for name in Self.names {
                let place = "root/" + name
                do throws(SystemError) {
                    switch random.next() % 4 {
                    case 0, 1: try scratch.makeDirectory(at: place)
                    case 2: try scratch.symlink(target: targets[Int(random.next() % UInt64(targets.count))], at: place)
                    default: _ = try scratch.open(at: place, [.writeOnly, .create, .exclusive], mode: 0o644)
                    }
                } catch {
                    // Its parent is no directory.
                }
            }
            let root = try scratch.open(at: "root", [.readOnly, .directory])
            let raw = root.raw
            let parts: [ByteString] = ["a", "b", "c", ".", "..", "none"]
            for _ in 0..<400 {
                var path = parts[Int(random.next() % 6)]
                for _ in 0..<random.next() % 4 { path = path + "/" + parts[Int(random.next() % 6)] }
                if random.next() % 8 == 0 { path = "/" + path }
                let directions: [ResolveFlags] = [.beneath, .inRoot, [.beneath, .noSymlinks], [.inRoot, .noMagicLinks]]
                let ways: [OpenFlags] = [
                    [.readOnly, .noFollow], [.readOnly], [.pathOnly], [.pathOnly, .noFollow], [.readOnly, .directory],
                ]
                for resolve in directions {
                    for flags in ways {
                        func answer(
                            _ way: (Int32, UnsafeRawBufferPointer, OpenFlags, UInt32, ResolveFlags) -> Int
                        ) throws -> Answer {
                            try Answer(path.bytes.withUnsafeBytes { way(raw, $0, flags, 0, resolve) })
                        }
                        var expected = try answer(PathResolution.call)
                        // Another process has renamed or mounted something meanwhile (openat2(2)).
                        while expected.errno == .tryAgain { expected = try answer(PathResolution.call) }
                        let found = try answer(PathResolution.walk)
                        #expect(try answer(PathResolution.open) == expected, "\(path) \(flags) \(resolve), seed \(seed)")
                        #expect(found == expected, "\(path) \(flags) \(resolve), seed \(seed)")
                    }
                }
            }
            // Open until here.
            #expect(try root.status().kind == .directory)
        }
    }
}
