import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import Testing

@Suite struct FileTests {
    @Test func readsInParts() throws {
        try withScratch { directory, _ in
            let file = try directory.open(at: "file", [.readWrite, .create, .exclusive], mode: 0o600)
            try file.writeAll(Array("0123456789".utf8))
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4, alignment: 1)
            defer { buffer.deallocate() }

            func read(_ parts: consuming FileParts) throws -> (parts: [String], end: UInt64) {
                var parts = parts
                var found: [String] = []
                while let part = try parts.next(of: file) { found.append(String(decoding: part, as: UTF8.self)) }
                #expect(try parts.next(of: file) == nil)
                return (found, parts.offset)
            }
            #expect(try read(FileParts(into: buffer)) == (["0123", "4567", "89"], 10))
            #expect(try read(FileParts(into: buffer, from: 1, to: 7)) == (["1234", "56"], 7))
            #expect(try read(FileParts(into: buffer, from: 3, to: 3)) == ([], 3))
            // The file ends within the range, or before it.
            #expect(try read(FileParts(into: buffer, from: 8, to: 1 << 63)) == (["89"], 10))
            #expect(try read(FileParts(into: buffer, from: 12, to: 16)) == ([], 12))
        }
    }

    /// Errors of a file without a name are those of its directory; one that lost its name is named by that.
    @Test func unnamedFilesInErrors() throws {
        try withScratch { directory, path in
            func pathOfError(_ file: borrowing FileDescriptor) -> ByteString? {
                do { _ = try file.readAll(limit: 1) } catch { return error.path }
                return nil
            }
            #expect(pathOfError(try directory.open(at: ".", [.writeOnly, .temporary], mode: 0o600)) == path)
            for name: ByteString in ["#1x", "#", "12"] {
                let removed = try directory.open(at: name, [.writeOnly, .create, .exclusive], mode: 0o600)
                #expect(pathOfError(removed) == path + "/" + name)
                try directory.unlink(at: name)
                #expect(pathOfError(removed) == path + "/" + name + " (deleted)")
            }
        }
    }

    @Test func writesAndReadsBack() throws {
        try withScratch { directory, path in
            let file = try directory.open(at: "file", [.readWrite, .create, .exclusive], mode: 0o600)
            try file.writeAll(Array("hello ".utf8))
            try file.writeAll([UInt8]())
            #expect(try Array("world".utf8).withUnsafeBytes { try file.write($0) } == 5)
            let status = try file.status()
            #expect(status.size == 11)
            #expect(status.kind == .regular)
            #expect(status.permissions == 0o600)
            #expect(status.links == 1)

            try file.seek(to: 0)
            #expect(try file.readAll(limit: 11) == Array("hello world".utf8))
            try file.seek(to: -5, from: .end)
            #expect(try file.readAll(limit: 100) == Array("world".utf8))
            try file.seek(to: 0)
            #expect(failure { _ = try file.readAll(limit: 10) } == SystemError("read", path + "/file", .fileTooLarge))

            var buffer = [UInt8](repeating: 0, count: 8)
            #expect(try buffer.withUnsafeMutableBytes { try file.preadFully(into: $0, at: 6) } == 5)
            #expect(buffer == Array("world\0\0\0".utf8))
            #expect(try buffer.withUnsafeMutableBytes { try file.pread(into: $0, at: .max) } == 0)

            try Array("W".utf8).withUnsafeBytes { try file.pwriteAll($0, at: 6) }
            try file.truncate(to: 7)
            #expect(try content(directory, "file") == Array("hello W".utf8))
            try file.allocate(4096)
            #expect(try file.status().size == 4096)
            try file.syncData()
            try file.sync()
            try directory.sync()
        }
    }

    /// On file systems with and without support (tmpfs), at unaligned offsets.
    @Test func writesPastThePageCache() throws {
        let bytes = (0..<300_001).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 / 251) }
        func check(_ directory: borrowing FileDescriptor, _ name: ByteString) throws {
            let file = try directory.open(at: name, [.readWrite, .create, .exclusive], mode: 0o600)
            defer { try? directory.unlink(at: name) }
            try bytes.withUnsafeBytes { try file.pwriteAll($0, at: 7, leavesCache: true) }
            try bytes.withUnsafeBytes { try file.pwriteAll($0, at: 300_008, leavesCache: true) }
            #expect(try content(directory, name) == [UInt8](repeating: 0, count: 7) + bytes + bytes)
        }
        try withScratch { directory, _ in try check(directory, "file") }
        let shared = try FileDescriptor.open("/dev/shm", [.readOnly, .directory])
        try check(shared, "linuxsystem-" + ByteString(Host.randomName()))
    }

    @Test func writesManyBuffersWithFewCalls() throws {
        // More than IOV_MAX (1024), empty ones among them.
        let chunks = (0..<3000).map { number in [UInt8](repeating: UInt8(number % 251), count: number % 5) }
        let all = chunks.flatMap { $0 }
        try withScratch { directory, _ in
            let file = try directory.open(at: "file", [.writeOnly, .create])
            all.withUnsafeBytes { whole in
                var start = 0
                var buffers: [UnsafeRawBufferPointer] = []
                for chunk in chunks {
                    buffers.append(UnsafeRawBufferPointer(rebasing: whole[start..<(start + chunk.count)]))
                    start += chunk.count
                }
                #expect(throws: Never.self) { try file.writeAll(buffers) }
            }
            #expect(try content(directory, "file") == all)
        }
    }

    @Test func shortWritesAreContinued() throws {
        // A pipe accepts at most 64 KiB at a time, so a reader is needed, and vectors are split.
        let pipe = try FileDescriptor.pipe()
        let total = 1 << 20
        let bytes = (0..<total).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8)) }
        let writer = try pipe.write.duplicate().release()
        let reader = pipe.keepRead()
        // A thread, not a task: the reader below blocks, and there may be only one thread for tasks.
        let pool = WorkerPool(threads: 1)
        pool.submit {
            let writer = FileDescriptor(owning: writer)
            bytes.withUnsafeBytes { whole in
                let parts = [UnsafeRawBufferPointer(rebasing: whole[..<300_001]), UnsafeRawBufferPointer(rebasing: whole[300_001...])]
                #expect(throws: Never.self) { try writer.writeAll(parts) }
            }
        }
        #expect(try reader.readAll(limit: total) == bytes)
        pool.shutdown()
    }

    @Test func pathsAreBytesAndNeverCut() throws {
        try withScratch { directory, path in
            let name = ByteString([0xff, 0x0a, 0x20, 0xc3])
            _ = try directory.open(at: name, [.writeOnly, .create])
            #expect(try directory.entries() == [DirectoryEntry(name: name, kind: .regular)])

            let withNul = ByteString(Array("file\0.txt".utf8))
            #expect(failure { _ = try directory.open(at: withNul, [.writeOnly, .create]) }?.errno == .invalidArgument)
            #expect(failure { try directory.symlink(target: withNul, at: "link") }?.errno == .invalidArgument)
            #expect(failure { try directory.unlink(at: withNul) }?.errno == .invalidArgument)
            let long = ByteString([UInt8](repeating: UInt8(ascii: "a"), count: 4096))
            #expect(failure { _ = try directory.open(at: long, .readOnly) }?.errno == .nameTooLong)
            #expect(failure { _ = try directory.open(at: ByteString(long.bytes.dropLast()), .readOnly) }?.errno == .nameTooLong)
            #expect(failure { _ = try directory.open(at: "", .readOnly) }?.errno == .noEntry)
            _ = path
        }
    }

    @Test func errorsNameThePath() throws {
        try withScratch { directory, path in
            let missing = failure { _ = try directory.open(at: "no/such", .readOnly) }
            #expect(missing == SystemError("open", path + "/no/such", .noEntry))
            #expect(missing?.description == "open \(path)/no/such: No such file or directory")
            #expect(failure { _ = try FileDescriptor.open("/no/such", .readOnly) }?.path == "/no/such")
            let readOnly = try directory.open(at: "file", [.readOnly, .create])
            #expect(failure { try readOnly.writeAll([1]) } == SystemError("write", path + "/file", .badDescriptor))
            #expect(failure { try directory.removeDirectory(at: "file") }?.errno == .notDirectory)
            #expect(Errno(rawValue: 28).description == "No space left on device")
            #expect(SystemError("x", "", .noSystemCall).isUnsupported)
            #expect(!SystemError("x", "", .noData).isUnsupported)
        }
    }

    @Test func temporaryFilesGetANameOnce() throws {
        try withScratch { directory, _ in
            try directory.makeDirectory(at: "ab")
            for round in 0..<2 {
                let file = try directory.openTemporary(at: "ab", mode: 0o644)
                try file.writeAll([UInt8(round)])
                #expect(try directory.open(at: "ab", [.readOnly, .directory]).entries().count == min(round, 1))
                let isNew = try Array("ab/name".utf8).withUnsafeBytes { try directory.link(temporary: file, at: $0) }
                #expect(isNew == (round == 0))
            }
            #expect(try content(directory, "ab/name") == [0])
            let other = try directory.openTemporary()
            #expect(failure { try directory.link(other, at: "ab/name") }?.errno == .exists)
            #expect(try directory.link(temporary: other, at: "second"))
            // Data written through one descriptor is visible through the second.
            let again = try other.reopen()
            try other.writeAll([7, 8] as [UInt8])
            #expect(try again.readAll(limit: 10) == [7, 8])
            #expect(failure { try again.writeAll([1] as [UInt8]) }?.errno == .badDescriptor)
        }
    }

    @Test func linksRenamesAndRemoves() throws {
        try withScratch { directory, path in
            try directory.makeDirectory(at: "d", mode: 0o700)
            #expect(try directory.makeDirectoryIfMissing(at: "d") == false)
            #expect(try directory.makeDirectoryIfMissing(at: "e"))
            #expect(failure { try directory.makeDirectory(at: "d") }?.errno == .exists)
            let d = try directory.open(at: "d", [.readOnly, .directory])
            try directory.symlink(target: "../target \u{e9}", at: "d/link")
            #expect(try d.readLink(at: "link") == "../target \u{e9}")
            #expect(try d.readLinkIfPresent(at: "none") == nil)
            #expect(failure { _ = try directory.readLink(at: "d") }?.errno == .invalidArgument)
            let longTarget = ByteString([UInt8](repeating: UInt8(ascii: "x"), count: 4095))
            try d.symlink(target: longTarget, at: "long")
            #expect(try d.readLink(at: "long") == longTarget)

            _ = try directory.open(at: "a", [.writeOnly, .create])
            try directory.link(at: "a", to: d, at: "b")
            #expect(try directory.status(at: "d/b").links == 2)
            try directory.link(at: "a", to: "c")
            #expect(failure { try directory.rename(at: "a", to: d, at: "b", flags: .noReplace) }?.errno == .exists)
            try directory.rename(at: "d/link", to: "moved")
            #expect(try directory.statusIfPresent(at: "moved")?.kind == .symbolicLink)
            try directory.rename(at: "moved", to: "d", flags: .exchange)
            #expect(try directory.status(at: "moved").kind == .directory)
            #expect(failure { try directory.removeDirectory(at: "moved") }?.errno == .notEmpty)
            try directory.unlink(at: "d")
            #expect(try directory.statusIfPresent(at: "d") == nil)
            #expect(try directory.openIfPresent(at: "d") == nil)
            try directory.removeDirectory(at: "e")
            #expect(failure { try directory.access(at: "c", .read) } == nil)
            #expect(failure { try directory.access(at: "nothing", .read) }?.path == path + "/nothing")
            try directory.makeNode(at: "fifo", mode: 0o010600)
            #expect(try directory.status(at: "fifo").kind == .fifo)
            try directory.setTime(at: "c", seconds: -77, nanoseconds: 5)
            try directory.changeMode(at: "c", 0o4711)
            let status = try directory.status(at: "c")
            #expect(status.mtimeSeconds == -77 && status.mtimeNanoseconds == 5 && status.permissions == 0o4711)
        }
    }

    @Test func openStaysBeneath() throws {
        try withScratch { directory, _ in
            try directory.makeDirectory(at: "root")
            let root = try directory.open(at: "root", [.readOnly, .directory])
            _ = try directory.open(at: "outside", [.writeOnly, .create])
            _ = try root.open(at: "inside", [.writeOnly, .create])
            try root.symlink(target: "../outside", at: "up")
            try root.symlink(target: "/inside", at: "absolute")
            #expect(failure { _ = try root.open(at: "up", .readOnly, resolve: .beneath) }?.errno == .crossDevice)
            #expect(failure { _ = try root.open(at: "absolute", .readOnly, resolve: .beneath) }?.errno == .crossDevice)
            #expect(failure { _ = try root.open(at: "absolute", .readOnly, resolve: .noSymlinks) }?.errno == .tooManySymbolicLinks)
            #expect(failure { _ = try root.open(at: "up", .readOnly, resolve: .inRoot) }?.errno == .noEntry)
            let inside = try root.open(at: "absolute", .readOnly, resolve: .inRoot)
            #expect(try inside.status().inode == root.status(at: "inside").inode)
        }
    }

    @Test func listsLargeDirectoriesFromTheStart() throws {
        try withScratch { directory, _ in
            // More than fits in one buffer of 32 KiB.
            let names = Set((0..<2000).map { ByteString("a name that is long enough to need a second buffer \($0)") })
            for name in names { _ = try directory.open(at: name, [.writeOnly, .create]) }
            for _ in 0..<2 {
                let entries = try directory.entries()
                #expect(entries.count == 2000)
                #expect(Set(entries.map(\.name)) == names)
                #expect(entries.allSatisfy { $0.kind == .regular })
            }
            let file = try directory.open(at: ByteString("a name that is long enough to need a second buffer 0"), .readOnly)
            #expect(failure { _ = try file.entries() }?.errno == .notDirectory)
        }
    }

    @Test func locksBelongToTheOpenFile() throws {
        try withScratch { directory, path in
            let first = try FileDescriptor.open(path, [.readOnly, .directory])
            let second = try FileDescriptor.open(path, [.readOnly, .directory])
            #expect(try first.lock(.shared))
            #expect(try second.lock(.shared, wait: false))
            #expect(try second.lock(.exclusive, wait: false) == false)
            try first.unlock()
            #expect(try second.lock(.exclusive, wait: false))
            #expect(try first.lock(.shared, wait: false) == false)
        }
    }

    @Test func copiesInsideTheKernel() throws {
        try withScratch { directory, _ in
            let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let source = try directory.open(at: "source", [.readWrite, .create])
            try source.writeAll(bytes)
            let target = try directory.open(at: "target", [.readWrite, .create])
            var done = 0
            while done < bytes.count {
                let count = try target.copyRange(from: source, at: UInt64(done), to: UInt64(done), count: bytes.count - done)
                if count == 0 { break }
                done += count
            }
            #expect(try content(directory, "target") == bytes)
            let clone = try directory.open(at: "clone", [.readWrite, .create])
            do {
                try clone.cloneContent(from: source)
                #expect(try content(directory, "clone") == bytes)
            } catch let error as SystemError {
                #expect(error.isUnsupported || error.errno == .crossDevice || error.errno == .invalidArgument)
            }
        }
    }

    @Test func openFileReadsAnywhere() throws {
        try withScratch { directory, path in
            let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
            try directory.open(at: "file", [.writeOnly, .create]).writeAll(bytes)
            let file = try OpenFile(path + "/file")
            #expect(file.byteCount == 10_000)
            var buffer = [UInt8](repeating: 0, count: 100)
            #expect(try buffer.withUnsafeMutableBytes { try file.read(at: 9_950, into: $0) } == 50)
            #expect(Array(buffer[..<50]) == Array(bytes[9_950...]))
            #expect(try buffer.withUnsafeMutableBytes { try file.read(at: 10_000, into: $0) } == 0)
        }
    }

    @Test func readsFilesWithoutASize() throws {
        // /proc reports size 0.
        let text = ByteString(try FileDescriptor.open("/proc/self/status", .readOnly).readAll(limit: 1 << 20)).utf8Text
        #expect(text?.hasPrefix("Name:") == true)
    }

    @Test func fileSystemStatusIsPlausible() throws {
        try withScratch { directory, _ in
            let status = try directory.fileSystemStatus()
            #expect(!status.isReadOnly)
            #expect(status.totalBytes >= status.availableBytes && status.availableBytes > 0)
            try directory.syncFileSystem()
        }
    }
}
