import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsTestSupport
import Synchronization
import Testing

/// After every possible failure, no mount, loop device or descriptor remains.
@Suite(.serialized) struct FailureTests {
    /// The ways to mount an image.
    struct Way: Sendable, CustomTestStringConvertible {
        /// How often overlayfs refuses layers in the form of newer kernels.
        var refused: Int
        /// Whether the image is on a file system from which the kernel cannot mount files.
        var needsLoop: Bool

        var testDescription: String { "\(refused) ways refused\(needsLoop ? ", loop device" : "")" }
    }

    @Test(arguments: [(0, false), (2, false), (100, false), (0, true), (100, true)].map { Way(refused: $0.0, needsLoop: $0.1) })
    func everyStepMayFail(_ way: Way) throws {
        try TestImage.with { test in
            try test.withImage(onTmpfs: way.needsLoop) { image in
                for error in [Errno.outOfMemory, .invalidArgument, .notPermitted] {
                    try failEachStep(test, image, way, error)
                }
            }
        }
    }

    private func failEachStep(_ test: TestImage, _ image: ByteString, _ way: Way, _ error: Errno) throws {
        let before = try State.calm(test)
        var steps = 0
        for step in 0..<200 {
            let observer = FailStep(step, error, refusing: way.refused)
            Kernel.observe(observer)
            defer { Kernel.observe(nil) }
            var isMounted = false
            do {
                try mountImage(try test.open(image), objects: try test.open(test.objects), verity: .none, at: test.target)
                isMounted = true
            } catch {}
            Kernel.observe(nil)
            // After a failed step of one way, the next way is tried, so a successful mount does not end the test.
            if isMounted {
                #expect(try test.mounted("external") == TestImage.external)
                try unmount(test.target)
            }
            let after = try State.settled(before, test)
            #expect(after == before, "step \(step), \(error)")
            steps = step
            if !observer.hasFailed {
                #expect(isMounted)
                break
            }
        }
        #expect(steps > 10 && steps < 199)
    }

    @Test func failuresLeaveNothingBehind() throws {
        try TestImage.with { test in
            let before = try State.calm(test)
            // Not an EROFS image, and a truncated one.
            let garbage = test.base + "/garbage"
            try FileDescriptor.open(garbage, [.writeOnly, .create]).writeAll([UInt8](repeating: 0xa5, count: 8192))
            for isTmpfs in [false, true] {
                try test.withImage(garbage, onTmpfs: isTmpfs) { garbage in
                    let error = failure {
                        try mountImage(try test.open(garbage), objects: try test.open(test.objects), verity: .none, at: test.target)
                    }
                    guard case .image(let system, let kernel) = error else {
                        Issue.record("\(String(describing: error))")
                        return
                    }
                    #expect(system.errno == .invalidArgument)
                    #expect(kernel.contains("superblock") || kernel.isEmpty)
                }
            }

            // The objects are not a directory.
            let noDirectory = failure {
                try mountImage(try test.open(test.image), objects: try test.open(test.image), verity: .none, at: test.target)
            }
            #expect(noDirectory == .system(SystemError("open", test.image, .notDirectory)))
            let noTarget = failure {
                try mountImage(try test.open(test.image), objects: try test.open(test.objects), verity: .none, at: test.base + "/none")
            }
            #expect(noTarget == .system(SystemError("open", test.base + "/none", .noEntry)))
            let file = failure {
                try mountImage(try test.open(test.image), objects: try test.open(test.objects), verity: .none, at: test.image)
            }
            #expect(file == .system(SystemError("open", test.image, .notDirectory)))
            // An upper directory on a file system that overlayfs cannot write to.
            let upper = failure {
                try test.mount(MountOptions(upperDirectory: "/proc/self", workDirectory: "/proc/self/task", readWrite: true))
            }
            guard case .overlay = upper else {
                Issue.record("\(String(describing: upper))")
                return
            }
            #expect(try State.settled(before, test) == before)
        }
    }

    @Test func noLoopDevice() throws {
        try TestImage.with { test in
            try test.withImage(onTmpfs: true) { image in
                Kernel.observe(AnswerOpen("/dev/loop-control", .noEntry))
                defer { Kernel.observe(nil) }
                let error = failure {
                    try mountImage(try test.open(image), objects: try test.open(test.objects), verity: .none, at: test.target)
                }
                Kernel.observe(nil)
                #expect(error == .noLoopDevice(SystemError("open", "/dev/loop-control", .noEntry)))
            }
        }
    }

    /// A kernel that cannot stack an overlay on an EROFS mount from a file can stack it on one from a loop device.
    @Test func aLoopDeviceIsTriedWhereTheOverlayFails() throws {
        try TestImage.with { test in
            guard (try? FileDescriptor.open("/dev/loop-control", .readWrite)) != nil else { try Test.cancel("no loop devices") }
            let before = try loopDevices(test)
            let observer = FailFirstJoin()
            Kernel.observe(observer)
            defer { Kernel.observe(nil) }
            try test.mount()
            Kernel.observe(nil)
            #expect(try loopDevices(test).count == before.count + 1)
            #expect(try test.mounted("external") == TestImage.external)
            try unmount(test.target)
            for _ in 0..<100 where try loopDevices(test) != before { Host.sleep(milliseconds: 10) }
            #expect(try loopDevices(test) == before)
        }
    }

    /// Many mounts leave nothing behind.
    @Test(.timeLimit(.minutes(5))) func aThousandCyclesLeaveNothing() throws {
        try TestImage.with { test in
            try test.withImage(onTmpfs: true) { onTmpfs in
                func cycle(_ image: ByteString, refusing: Int = 0) throws {
                    if refusing > 0 { Kernel.observe(RefuseParameter("lowerdir+", times: refusing)) }
                    defer { Kernel.observe(nil) }
                    try mountImage(try test.open(image), objects: try test.open(test.objects), verity: .none, at: test.target)
                    _ = try test.open(test.target + "/external")
                    try unmount(test.target)
                }
                try cycle(test.image)
                let before = try State.calm(test)
                for index in 0..<1000 {
                    switch index % 20 {
                    case 7: try cycle(onTmpfs)
                    case 14: try cycle(test.image, refusing: 100)
                    default: try cycle(test.image)
                    }
                }
                #expect(try State.settled(before, test) == before)
            }
        }
    }
}

/// The state that must not change.
private struct State: Equatable {
    var mounts = 0
    var descriptors = 0
    var threads = 0
    var loops: [ByteString] = []

    init(_ test: TestImage) throws {
        mounts = try mountCount(test)
        descriptors = try descriptorCount()
        // Only named threads are ours; the test library starts and ends others.
        let tasks = try FileDescriptor.open("/proc/self/task", [.readOnly, .directory])
        threads = try tasks.entries().count { task in
            (try? tasks.open(at: task.name + "/comm", .readOnly).readAll(limit: 64)) == Array("cfsoci\n".utf8)
        }
        loops = try loopDevices(test)
    }

    /// The state when nothing of an earlier test ends any more: connections are closed by a thread of their own.
    static func calm(_ test: TestImage) throws -> State {
        var (state, times) = (try State(test), 0)
        while times < 10 {
            Host.sleep(milliseconds: 20)
            let next = try State(test)
            times = next == state ? times + 1 : 0
            state = next
        }
        return state
    }

    /// Loop devices and threads end shortly after their last user.
    static func settled(_ wanted: State, _ test: TestImage) throws -> State {
        for _ in 0..<100 {
            let now = try State(test)
            if now == wanted { return now }
            Host.sleep(milliseconds: 10)
        }
        return try State(test)
    }
}

/// Makes one of the system calls and the first uses of `lowerdir+` fail.
private final class FailStep: SystemCallObserver {
    private let step: Int
    private let error: Errno
    private let refuse: RefuseParameter
    private let count = Atomic<Int>(0)

    init(_ step: Int, _ error: Errno, refusing: Int) {
        self.step = step
        self.error = error
        refuse = RefuseParameter("lowerdir+", times: refusing)
    }

    var hasFailed: Bool { count.load(ordering: .relaxed) > step }

    func before(_ call: SystemCall) -> Errno? {
        count.add(1, ordering: .relaxed).oldValue == step ? error : refuse.before(call)
    }

    func after(_ call: SystemCall, result: Int) {}
}

/// Makes opening one path fail.
private final class AnswerOpen: SystemCallObserver {
    private let path: ByteString
    private let errno: Errno

    init(_ path: ByteString, _ errno: Errno) {
        self.path = path
        self.errno = errno
    }

    func before(_ call: SystemCall) -> Errno? { call.kind == .open && call.path.map { ByteString($0) } == path ? errno : nil }

    func after(_ call: SystemCall, result: Int) {}
}

/// Makes every overlay fail until a loop device is in use.
private final class FailFirstJoin: SystemCallObserver {
    private let hasLoop = Atomic<Bool>(false)

    func before(_ call: SystemCall) -> Errno? {
        guard call.kind == .mount, let path = call.path.map({ ByteString($0) }), path.hasPrefix("lowerdir") else { return nil }
        return hasLoop.load(ordering: .relaxed) ? nil : .invalidArgument
    }

    func after(_ call: SystemCall, result: Int) {
        if call.kind == .loopDevice, result >= 0 { hasLoop.store(true, ordering: .relaxed) }
    }
}
