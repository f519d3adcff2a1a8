import ComposefsBytes
import Testing

@testable import ComposefsLinuxSystem

/// Paths that would leave the directory, through a link or by themselves, are refused.
struct RootedDirectoryTests {
    /// A directory `root` beside a directory `outside`. `root` contains `inside` and links that lead out, or back in.
    private func withRoot(_ body: (borrowing RootedDirectory, borrowing FileDescriptor) throws -> Void) throws {
        try withScratch { scratch, path in
            for name: ByteString in ["root", "outside", "root/inside"] { try scratch.makeDirectory(at: name) }
            try scratch.open(at: "outside/file", [.writeOnly, .create], mode: 0o644).writeAll(Array("outside".utf8))
            try scratch.open(at: "root/inside/file", [.writeOnly, .create], mode: 0o644).writeAll(Array("inside".utf8))
            try scratch.symlink(target: "../outside", at: "root/relative")
            try scratch.symlink(target: path + "/outside", at: "root/absolute")
            try scratch.symlink(target: "inside", at: "root/harmless")
            try scratch.symlink(target: "../../outside/file", at: "root/inside/link")
            let root = RootedDirectory(try scratch.open(at: "root", [.readOnly, .directory]))
            try body(root, scratch)
            #expect(try content(scratch, "outside/file") == Array("outside".utf8))
            #expect(try scratch.open(at: "outside", [.readOnly, .directory]).entries().map(\.name) == ["file"])
        }
    }

    private static let ways: [ByteString] = [
        "relative/file", "absolute/file", "harmless/file", "../outside/file", "inside/../../outside/file", "/etc/passwd", "..",
    ]
    private static let answers: [Errno] = [.tooManySymbolicLinks, .notDirectory, .crossDevice]

    @Test func insideIsReached() throws {
        try withRoot { root, scratch in
            #expect(try root.open(at: "inside/file", .readOnly).readAll(limit: 100) == Array("inside".utf8))
            #expect(try root.status(at: "inside/file").size == 6)
            #expect(try root.readLink(at: "inside/link") == "../../outside/file")
            #expect(try root.status(at: "inside/link").kind == .symbolicLink)
            #expect(try root.entries(of: "inside")?.map(\.name).sorted() == ["file", "link"])
            #expect(try root.entries(of: "none") == nil && root.statusIfPresent(at: "inside/none") == nil)
            #expect(try root.statusIfPresent(at: "none/none") == nil && root.readLinkIfPresent(at: "none") == nil)
            try root.makeDirectory(at: "inside/new")
            try root.symlink(target: "x", at: "inside/new/link")
            try root.rename(at: "inside/new/link", to: "inside/renamed")
            try root.link(at: "inside/file", to: "inside/new/second")
            let temporary = try root.open(at: "inside", [.readWrite, .temporary], mode: 0o644)
            try root.link(temporary, at: "inside/third")
            try root.unlink(at: "inside/new/second")
            try root.removeDirectory(at: "inside/new")
            #expect(try root.entries(of: "inside")?.map(\.name).sorted() == ["file", "link", "renamed", "third"])
            #expect(try root.directory(at: "inside").status(at: "file").kind == .regular)
        }
    }

    /// The kernel says of a directory that was removed after it was opened that there is no such entry.
    @Test func directoryThatWasRemovedMeanwhile() throws {
        try withScratch { scratch, _ in
            try scratch.makeDirectory(at: "short-lived")
            let directory = RootedDirectory(try scratch.open(at: "short-lived", [.readOnly, .directory]))
            #expect(try directory.entries(of: ".")?.isEmpty == true)
            try scratch.removeDirectory(at: "short-lived")
            #expect(try directory.entries(of: ".") == nil)
        }
    }

    @Test(arguments: ways) func nothingOutsideIsReached(_ path: ByteString) throws {
        try withRoot { root, scratch in
            let fresh: ByteString = path == ".." ? "../new" : path + "-new"
            // Borrowed values cannot be captured, so each call is written out.
            do throws(SystemError) {
                _ = try root.open(at: path, .readOnly)
                Issue.record("opened \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "open \(path): \(error)") }
            do throws(SystemError) {
                _ = try root.open(at: fresh, [.writeOnly, .create], mode: 0o644)
                Issue.record("created \(fresh)")
            } catch { #expect(Self.answers.contains(error.errno), "create \(path): \(error)") }
            do throws(SystemError) {
                _ = try root.statusIfPresent(at: path)
                Issue.record("looked at \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "stat \(path): \(error)") }
            do throws(SystemError) {
                _ = try root.readLinkIfPresent(at: path)
                Issue.record("read \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "readlink \(path): \(error)") }
            do throws(SystemError) {
                try root.unlink(at: path)
                Issue.record("removed \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "unlink \(path): \(error)") }
            do throws(SystemError) {
                try root.makeDirectory(at: fresh)
                Issue.record("made \(fresh)")
            } catch { #expect(Self.answers.contains(error.errno), "mkdir \(path): \(error)") }
            do throws(SystemError) {
                try root.symlink(target: "x", at: fresh)
                Issue.record("linked \(fresh)")
            } catch { #expect(Self.answers.contains(error.errno), "symlink \(path): \(error)") }
            do throws(SystemError) {
                try root.rename(at: "inside/file", to: path)
                Issue.record("renamed to \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "rename \(path): \(error)") }
            do throws(SystemError) {
                try root.rename(at: path, to: "inside/taken")
                Issue.record("renamed from \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "rename \(path): \(error)") }
            do throws(SystemError) {
                try root.link(at: path, to: "inside/taken")
                Issue.record("linked \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "link \(path): \(error)") }
            do throws(SystemError) {
                try root.removeDirectory(at: path)
                Issue.record("removed \(path)")
            } catch { #expect(Self.answers.contains(error.errno), "rmdir \(path): \(error)") }
        }
    }

    /// Kernels before 5.6, and sandboxes: the path is walked component by component.
    @Test func walking() throws {
        try withRoot { root, _ in
            let number = root.descriptor.raw
            func walk(_ path: ByteString, _ flags: OpenFlags = .readOnly) -> Errno? {
                let result = path.bytes.withUnsafeBytes { PathResolution.walk(number, $0, flags, 0o644, [.beneath, .noSymlinks]) }
                guard let opened = Int32(exactly: result), opened >= 0 else { return Errno(rawValue: Int32(-result)) }
                _ = FileDescriptor(owning: opened)
                return nil
            }
            #expect(walk("inside/file") == nil && walk(".", [.readOnly, .directory]) == nil)
            #expect(walk("inside/new", [.writeOnly, .create]) == nil && walk("inside", [.readWrite, .temporary]) == nil)
            #expect(walk("inside/none") == .noEntry)
            for path in Self.ways { #expect(walk(path).map { Self.answers.contains($0) } == true, "\(path)") }
            #expect(walk("inside/link").map { Self.answers.contains($0) } == true)
        }
    }
}
