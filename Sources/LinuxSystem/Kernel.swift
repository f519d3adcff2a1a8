package import Bytes
internal import Synchronization

/// A system call that changes something.
package struct SystemCall: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        case create, write, truncate, link, symlink, rename, unlink, makeDirectory, sync, syncFileSystem, enableVerity
        case setAttributes, clone, allocate, mount, unmount
    }

    package var kind: Kind
    package var path: ByteString
}

/// The one door to the kernel for all that changes anything: a test can watch it, make a call fail, or stop the world after it.
package enum Kernel {
    /// Called before each changing call. An error number makes the call fail with it, without being made.
    package typealias Hook = @Sendable (SystemCall) -> Errno?

    private static let hook = Mutex<Hook?>(nil)
    private static let isHooked = Atomic<Bool>(false)

    /// Whether a hook is installed.
    static var isWatched: Bool { isHooked.load(ordering: .relaxed) }

    /// Installs a hook for the whole process, or removes it.
    package static func setHook(_ new: Hook?) {
        hook.withLock { $0 = new }
        isHooked.store(new != nil, ordering: .sequentiallyConsistent)
    }

    @inline(__always)
    static func change(_ kind: SystemCall.Kind, _ path: ByteString, _ body: () -> Int) -> Int {
        if isHooked.load(ordering: .relaxed), let errno = intercept(kind, path) { return -Int(errno.rawValue) }
        return body()
    }

    @inline(never)
    private static func intercept(_ kind: SystemCall.Kind, _ path: ByteString) -> Errno? {
        let current = hook.withLock { $0 }
        return current?(SystemCall(kind: kind, path: path))
    }
}

extension ByteString {
    /// The bytes as the shims take them: a start and a length.
    @inline(__always)
    func withPath<Value>(_ body: (UnsafeRawPointer?, Int) -> Value) -> Value {
        bytes.withUnsafeBytes { body($0.baseAddress, $0.count) }
    }
}

/// Turns a shim's result into a value or an error.
@inline(__always)
func check(_ result: Int, _ operation: String, _ path: @autoclosure () -> ByteString = ByteString()) throws(SystemError) -> Int {
    guard result < 0 else { return result }
    throw SystemError(operation, path(), Errno(rawValue: Int32(truncatingIfNeeded: -result)))
}
