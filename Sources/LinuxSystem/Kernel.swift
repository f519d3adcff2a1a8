package import Bytes
internal import Synchronization

/// What a system call changes.
package enum SystemCallKind: Sendable, Hashable {
    case create, write, truncate, allocate, clone, copyRange
    case makeDirectory, makeNode, symlink, unlink, removeDirectory, rename, link
    case changeMode, changeOwner, setTime, setAttribute
    case fsync, fdatasync, syncfs, enableVerity
    case mount, unmount, loopDevice
}

/// A system call about to be made.
package struct SystemCall: Sendable, Hashable {
    package var kind: SystemCallKind
    /// The descriptor it is made on or relative to; -1 where there is none.
    package var descriptor: Int32
    /// Relative to the descriptor; empty where the call is about the descriptor itself.
    package var path: ByteString
    package var otherDescriptor: Int32
    package var otherPath: ByteString
    /// Bytes, for calls that have a length.
    package var count: Int
}

/// The one door to the kernel: every system call that changes anything passes through here, where a test can record it, make it fail, or
/// stop the world before it.
package enum Kernel {
    /// Called before each changing call; an error number makes the call fail with it without being made.
    package typealias Hook = @Sendable (SystemCall) -> Errno?

    private static let isHooked = Atomic<Bool>(false)
    private static let hook = Mutex<Hook?>(nil)

    /// Installs a hook for the whole process; nil removes it.
    package static func setHook(_ new: Hook?) {
        hook.withLock { $0 = new }
        isHooked.store(new != nil, ordering: .sequentiallyConsistent)
    }

    /// Makes a call unless the hook has it fail. Returns what the shim returned, or -errno.
    @inline(__always)
    static func call(
        _ kind: SystemCallKind, _ descriptor: Int32, _ path: UnsafeRawBufferPointer? = nil, other: Int32 = -1,
        otherPath: UnsafeRawBufferPointer? = nil, count: Int = 0, _ body: () -> Int
    ) -> Int {
        if isHooked.load(ordering: .relaxed),
            let errno = ask(kind, descriptor, path, other, otherPath, count)
        {
            return -Int(errno.rawValue)
        }
        return body()
    }

    @inline(never)
    private static func ask(
        _ kind: SystemCallKind, _ descriptor: Int32, _ path: UnsafeRawBufferPointer?, _ other: Int32, _ otherPath: UnsafeRawBufferPointer?,
        _ count: Int
    ) -> Errno? {
        let current = hook.withLock { $0 }
        return current?(
            SystemCall(
                kind: kind, descriptor: descriptor, path: path.map { ByteString($0) } ?? ByteString(), otherDescriptor: other,
                otherPath: otherPath.map { ByteString($0) } ?? ByteString(), count: count))
    }
}
