import ComposefsBytes
import ComposefsHashing
import ComposefsRepository
import Glibc
import Synchronization
import Testing

@testable import ComposefsLinuxSystem

/// The directories `objects/00` to `objects/ff` stay open while a handle stores objects.
@Suite(.serialized) struct ObjectDirectoryTests {
    /// Counts how often directories of objects are opened.
    private final class Opens: SystemCallObserver {
        let count = Atomic<Int>(0)

        func before(_ call: SystemCall) -> Errno? {
            if call.kind == .open, let path = call.path, ByteString(path).hasPrefix("objects/") { count.add(1, ordering: .relaxed) }
            return nil
        }
        func after(_ call: SystemCall, result: Int) {}
    }

    private func publication(_ stream: StoredObject) -> Repository.Publication {
        var publication = Repository.Publication()
        publication.stream("s", stream.id)
        publication.streamReference("tag", to: "s")
        return publication
    }

    private func path(_ object: StoredObject) -> ByteString { "objects/" + ByteString(object.id.objectPath) }
    private func directory(_ object: StoredObject) -> ByteString { ByteString(Array(path(object).bytes[..<10])) }

    /// Two contents with objects in the same directory.
    private func neighbours(_ repository: Repository) throws -> (first: StoredObject, content: [UInt8]) {
        let first = try repository.store(content(100))
        for number in 0... {
            let other = Array("neighbour \(number)".utf8)
            let id = other.withUnsafeBytes { VerityHasher.objectID(of: $0, first.id.algorithm) }
            if id.bytes[0] == first.id.bytes[0] { return (first, other) }
        }
        throw TestFailure()
    }

    private struct TestFailure: Error {}

    @Test func eachDirectoryIsOpenedOnce() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        // All directories exist.
        for number in 0..<3000 { _ = try repository.store(Array("first \(number)".utf8)) }
        try repository.sync()
        let opens = Opens()
        try Recorder(forwarding: opens).observe {
            for number in 0..<1000 { _ = try repository.store(Array("second \(number)".utf8)) }
        }
        let count = opens.count.load(ordering: .relaxed)
        #expect(count > 0 && count <= 256)
        #expect(try repository.check().problems == [])
    }

    /// Nothing stays open after a sync, and the directories are few beside what the process may open.
    @Test func directoriesAreClosedAgain() throws {
        var limit = rlimit()
        #expect(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        let before = KeptDirectories.openCount
        let (one, other) = (try Scratch(), try Scratch())
        let (first, second) = (try one.create(), try other.create())
        for number in 0..<500 {
            _ = try first.store(Array("\(number)".utf8))
            _ = try second.store(Array("\(number)".utf8))
        }
        #expect(KeptDirectories.openCount > before)
        #expect(UInt64(KeptDirectories.openCount) <= UInt64(limit.rlim_cur) / 4)
        try first.sync()
        try second.sync()
        #expect(KeptDirectories.openCount == before)
    }

    @Test func aRemovedDirectoryIsMadeAgain() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let (first, other) = try neighbours(repository)
        let root = try scratch.directory()
        try root.unlink(at: path(first))
        try root.removeDirectory(at: directory(first))
        let second = try repository.store(other)
        #expect(second.isNew)
        #expect(try scratch.read(path(second)) == other)
        try repository.publish(publication(try repository.storeStream(objects: [second])))
        #expect(try repository.check().problems == [])
    }

    /// What was put into a directory that another process moves away would be lost: nothing may refer to it.
    @Test(arguments: [false, true]) func aMovedDirectoryIsFound(isReplaced: Bool) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let (first, other) = try neighbours(repository)
        let root = try scratch.directory()
        try root.rename(at: directory(first), to: "moved")
        if isReplaced { try root.makeDirectory(at: directory(first)) }
        let second = try repository.store(other)
        let stream = try repository.storeStream(objects: [first, second])
        let error = failure { try repository.publish(publication(stream)) }
        #expect(error?.description.contains("\(directory(first)): Stale file handle") == true, "\(String(describing: error))")
        #expect(try scratch.listing()["streams/s"] == nil)
        // The same handle stores them anew, and another one, too.
        let again = try repository.store(other)
        #expect(again.isNew)
        #expect(try scratch.read(path(again)) == other)
        let files = [try repository.store(content(100)), again]
        #expect(files[0].isNew)
        try repository.publish(publication(try repository.storeStream(objects: files)))
        #expect(try scratch.open().check().problems.map(\.path) == ["moved"])
    }

    /// A link in the place of a directory is not followed.
    @Test func aLinkIsNoDirectory() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let (first, other) = try neighbours(repository)
        try repository.sync()
        let root = try scratch.directory()
        try root.rename(at: directory(first), to: "moved")
        try root.symlink(target: "../moved", at: directory(first))
        #expect(failure { _ = try repository.store(other) } != nil)
        #expect(try root.open(at: "moved", [.readOnly, .directory]).entries().count == 1)
    }
}
