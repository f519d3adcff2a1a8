internal import ComposefsCLinux
internal import Synchronization

/// The kinds of system calls that pass through `Kernel`.
public enum SystemCallKind: UInt8, Sendable, CaseIterable {
    /// Opening without creating. It is observed because it can fail when descriptors run out.
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

/// One system call, as a test's observer sees it. The buffers are valid only during the call.
package struct SystemCall {
    package var kind: SystemCallKind
    /// The descriptor of the call, or of the directory that `path` is relative to.
    package var descriptor: Int32
    /// The path, if any. For mount parameters, the parameter's name; for link and rename, the new name; for symlink, the link's own path.
    package var path: UnsafeRawBufferPointer?
    /// For link and rename, the old directory or the file; for clone and copyRange, the source.
    package var otherDescriptor: Int32 = -1
    /// For rename, the old name; for symlink, the target.
    package var otherPath: UnsafeRawBufferPointer?
    /// The number of bytes to write, or the new size.
    package var count: Int = 0
}

/// Observes every system call that changes something, on any thread.
package protocol SystemCallObserver: AnyObject, Sendable {
    /// Called before the system call. If it returns an error number, the call fails with it and does not reach the kernel.
    func before(_ call: SystemCall) -> Errno?
    /// Called after the system call with its result or -errno, unless `before` made the call fail.
    func after(_ call: SystemCall, result: Int)
}

/// The single entry point for all system calls that change something.
///
/// Without an observer it costs one relaxed atomic load. Tests install an observer to record the calls, to make them fail, or to end the
/// process between any two of them.
package enum Kernel {
    private static let isObserved = Atomic<Bool>(false)
    private static let observer = Mutex<(any SystemCallObserver)?>(nil)

    /// Installs an observer for the whole process; nil removes it. A test that uses it must not run in parallel with others.
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
