internal import ComposefsCLinux
internal import Synchronization

/// The system calls that pass through the door.
public enum SystemCallKind: UInt8, Sendable, CaseIterable {
    /// Opening without creating: passed through because it can fail for want of descriptors.
    case open
    /// Opening with O_CREAT, O_TRUNC or O_TMPFILE.
    case create
    case write, truncate, allocate, clone, copyRange
    case makeDirectory, makeNode, symlink, link, rename, unlink, removeDirectory
    case setAttribute, changeMode, changeOwner, setTime
    case enableVerity
    case fsync, fdatasync, syncfs
    case mount, unmount, loopDevice
}

/// One system call as a test's observer sees it. The buffers are valid only during the call.
package struct SystemCall {
    package var kind: SystemCallKind
    /// The descriptor worked on, or the directory that `path` is relative to.
    package var descriptor: Int32
    /// The path given, if any; for mount parameters the parameter's name; for link and rename the new name, for symlink the link's own path.
    package var path: UnsafeRawBufferPointer?
    /// link and rename: the old directory or the file; clone and copyRange: the source.
    package var otherDescriptor: Int32 = -1
    /// rename: the old name; symlink: the target.
    package var otherPath: UnsafeRawBufferPointer?
    /// Bytes to be written, or the new size.
    package var count: Int = 0
}

/// Sees every system call that changes something, from any thread.
package protocol SystemCallObserver: AnyObject, Sendable {
    /// Asked before the call. An error number makes the call fail with it, without reaching the kernel.
    func before(_ call: SystemCall) -> Errno?
    /// Told after the call: its result, or -errno. Not called for what `before` made fail.
    func after(_ call: SystemCall, result: Int)
}

/// The one door to the kernel for everything that changes something.
///
/// Without an observer it costs one relaxed load. The observer is for tests: it can record the calls, let them fail, or end the process
/// between any two of them.
package enum Kernel {
    private static let isObserved = Atomic<Bool>(false)
    private static let observer = Mutex<(any SystemCallObserver)?>(nil)

    /// Installs an observer for the whole process; nil removes it. Tests that use it must not run beside others.
    package static func observe(_ new: (any SystemCallObserver)?) {
        observer.withLock { $0 = new }
        isObserved.store(new != nil, ordering: .sequentiallyConsistent)
    }

    /// Runs `body`, which returns a result >= 0 or -errno.
    @inline(__always)
    static func call(
        _ kind: SystemCallKind, _ descriptor: Int32, _ path: UnsafeRawBufferPointer? = nil, other: Int32 = -1,
        otherPath: UnsafeRawBufferPointer? = nil, count: Int = 0, _ body: () -> Int
    ) -> Int {
        guard isObserved.load(ordering: .relaxed) else { return body() }
        let call = SystemCall(
            kind: kind, descriptor: descriptor, path: path, otherDescriptor: other, otherPath: otherPath, count: count)
        return observed(call, body)
    }

    @inline(never)
    private static func observed(_ call: SystemCall, _ body: () -> Int) -> Int {
        guard let observer = observer.withLock({ $0 }) else { return body() }
        if let error = observer.before(call) { return -Int(error.rawValue) }
        let result = body()
        observer.after(call, result: result)
        return result
    }
}
