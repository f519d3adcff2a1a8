import ComposefsBytes
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsLinuxSystem

/// Directories are removed with everything below them, and nothing else.
struct RemoveTreeTests {
    private func withTree(_ body: (borrowing RootedDirectory, borrowing FileDescriptor, ByteString) throws -> Void) throws {
        try withScratch { scratch, path in
            for name: ByteString in ["root", "root/tree", "root/tree/a", "root/tree/a/deep", "root/tree/b", "outside"] {
                try scratch.makeDirectory(at: name)
            }
            for name: ByteString in ["root/tree/a/deep/file", "root/tree/a/file", "outside/file"] {
                try scratch.open(at: name, [.writeOnly, .create], mode: 0o644).writeAll(Array("text".utf8))
            }
            try scratch.symlink(target: path + "/outside", at: "root/tree/b/link")
            try body(RootedDirectory(try scratch.open(at: "root", [.readOnly, .directory])), scratch, path)
            #expect(try content(scratch, "outside/file") == Array("text".utf8))
        }
    }

    @Test func treeWithLinks() throws {
        try withTree { root, _, _ in
            #expect(try root.mountPoint(atOrBelow: "tree") == nil && root.mountPoint(atOrBelow: "none/none") == nil)
            try root.removeTree(at: "tree/a")
            #expect(try root.entries(of: "tree")?.map(\.name) == ["b"])
            try root.removeTree(at: "tree")
            try root.removeTree(at: "tree")
            try root.removeTree(at: "none/none")
            #expect(try root.entries(of: ".")?.isEmpty == true)
        }
    }

    /// On kernels without openat2, another file system is known by its device.
    @Test func walkStopsAtOtherDevices() throws {
        let root = try FileDescriptor.open("/", [.pathOnly, .directory])
        func opened(_ path: ByteString, crosses: Bool) -> Int {
            let flags: OpenFlags = [.readOnly, .directory]
            let resolve: ResolveFlags = crosses ? [.beneath, .noSymlinks] : [.beneath, .noSymlinks, .noCrossDevice]
            let result = path.bytes.withUnsafeBytes { PathResolution.walk(root.raw, $0, flags, 0, resolve) }
            if let file = Int32(exactly: result), file >= 0 { close(file) }
            return min(result, 0)
        }
        #expect(opened("proc", crosses: true) == 0 && opened("proc/sys", crosses: false) == -Int(EXDEV))
        #expect(opened("usr/bin", crosses: false) == 0 || opened("usr/bin", crosses: false) == -Int(EXDEV))
    }

    /// A file system that is mounted below stays as it is, and so does a directory that is mounted there from elsewhere.
    @Test(.enabled(if: Host.effectiveUserID == 0, "needs root"), arguments: ["root/tree/a/deep", "root/tree"], [true, false])
    func mountPointsAreNotEntered(_ place: String, isBind: Bool) throws {
        try withTree { root, scratch, path in
            let target = "\(path)/\(place)"
            // MS_BIND
            let made = isBind ? mount("\(path)/outside", target, nil, 4096, nil) : mount("tmpfs", target, "tmpfs", 0, nil)
            try #require(made == 0, "mount: \(String(cString: strerror(errno)))")
            defer { #expect(umount2(target, 0) == 0) }
            if !isBind {
                try scratch.open(at: ByteString(place) + "/file", [.writeOnly, .create], mode: 0o644).writeAll(Array("text".utf8))
            }
            #expect(try root.mountPoint(atOrBelow: "tree") == (place == "root/tree" ? "tree" : "tree/a/deep"))
            let error = failure { try root.removeTree(at: "tree") }
            #expect(error?.errno == .busy && error?.path == ByteString(target))
            #expect(try content(scratch, ByteString(place) + "/file") == Array("text".utf8))
        }
    }
}
