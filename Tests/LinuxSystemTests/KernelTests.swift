import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Synchronization
import Testing

/// Records the calls of one thread, without those of tests that run in parallel, and makes selected ones fail.
private final class Recorder: SystemCallObserver {
    struct Line: Sendable, Equatable {
        var kind: SystemCallKind
        var path: ByteString
        var count: Int
        var isDone: Bool
    }

    private let thread = pthread_self()
    private let lines = Mutex<[Line]>([])
    private let rule: @Sendable (SystemCall) -> Errno?

    init(_ rule: @escaping @Sendable (SystemCall) -> Errno? = { _ in nil }) { self.rule = rule }

    var all: [Line] { lines.withLock { $0 } }

    func before(_ call: SystemCall) -> Errno? {
        guard pthread_self() == thread else { return nil }
        let line = Line(kind: call.kind, path: call.path.map { ByteString($0) } ?? "", count: call.count, isDone: false)
        lines.withLock { $0.append(line) }
        return rule(call)
    }

    func after(_ call: SystemCall, result: Int) {
        guard pthread_self() == thread else { return }
        lines.withLock { all in if !all.isEmpty { all[all.count - 1].isDone = result >= 0 } }
    }
}

@Suite(.serialized) struct KernelTests {
    @Test func everyChangePassesTheDoor() throws {
        try withScratch { directory, _ in
            let recorder = Recorder()
            Kernel.observe(recorder)
            defer { Kernel.observe(nil) }
            let file = try directory.openTemporary()
            try file.writeAll([1, 2, 3])
            try file.sync()
            #expect(try directory.link(temporary: file, at: "a"))
            try directory.makeDirectory(at: "d")
            try directory.symlink(target: "a", at: "d/s")
            try directory.rename(at: "a", to: "b")
            try directory.unlink(at: "d/s")
            try directory.removeDirectory(at: "d")
            try directory.syncFileSystem()
            #expect(failure { try directory.unlink(at: "d") }?.errno == .noEntry)
            #expect(
                recorder.all == [
                    .init(kind: .create, path: ".", count: 0, isDone: true),
                    .init(kind: .write, path: "", count: 3, isDone: true),
                    .init(kind: .fsync, path: "", count: 0, isDone: true),
                    .init(kind: .link, path: "a", count: 0, isDone: true),
                    .init(kind: .makeDirectory, path: "d", count: 0, isDone: true),
                    .init(kind: .symlink, path: "d/s", count: 0, isDone: true),
                    .init(kind: .rename, path: "b", count: 0, isDone: true),
                    .init(kind: .unlink, path: "d/s", count: 0, isDone: true),
                    .init(kind: .removeDirectory, path: "d", count: 0, isDone: true),
                    .init(kind: .syncfs, path: "", count: 0, isDone: true),
                    .init(kind: .unlink, path: "d", count: 0, isDone: false),
                ])
            #expect(try content(directory, "b") == [1, 2, 3])
        }
    }

    @Test func aCallCanBeMadeToFail() throws {
        try withScratch { directory, path in
            let file = try directory.open(at: "file", [.readWrite, .create])
            Kernel.observe(
                Recorder { call in
                    switch call.kind {
                    case .write: .noSpace
                    case .open: .tooManyOpenFiles
                    default: nil
                    }
                })
            #expect(failure { try file.writeAll([1]) } == SystemError("write", path + "/file", .noSpace))
            #expect(failure { _ = try directory.open(at: "file", .readOnly) }?.errno == .tooManyOpenFiles)
            #expect(failure { _ = try file.duplicate() }?.errno == .tooManyOpenFiles)
            Kernel.observe(nil)
            #expect(try file.status().size == 0)
            try file.writeAll([1])
        }
    }
}
