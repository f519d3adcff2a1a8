internal import ComposefsBytes
internal import ComposefsCLinux

/// One instruction of a classic BPF program: struct sock_filter (linux/filter.h).
public struct FilterInstruction: Sendable, Hashable {
    public var code: UInt16
    /// Instructions to skip if the condition holds, and if it does not.
    public var jumpTrue: UInt8
    public var jumpFalse: UInt8
    public var operand: UInt32

    public init(_ code: UInt16, _ operand: UInt32, jumpTrue: UInt8 = 0, jumpFalse: UInt8 = 0) {
        self.code = code
        self.jumpTrue = jumpTrue
        self.jumpFalse = jumpFalse
        self.operand = operand
    }
}

/// A seccomp filter (seccomp(2)).
public enum SystemCallFilter {
    /// The value of `seccomp_data.arch` for this program's own system calls; nil if filters cannot be made for this architecture.
    public static var architecture: UInt32? { cl_audit_architecture == 0 ? nil : cl_audit_architecture }

    /// Whether calls of another ABI have the same `arch`, with numbers from 0x40000000 (x32).
    public static var hasX32Calls: Bool { cl_has_x32_calls != 0 }

    /// The number of a system call by its name; nil if this architecture lacks it.
    public static func number(of name: String) -> UInt32? { UInt32(exactly: cl_system_call_number(name)) }

    /// Installs a filter in the calling thread, or in all threads of the process, and in all that they start from now on. Filters add up: the
    /// strictest answer counts. The thread must have no_new_privs or CAP_SYS_ADMIN.
    ///
    /// - Throws: ENOSYS or EINVAL if the kernel was built without filters; ESRCH if another thread has a filter that this one lacks.
    public static func install(_ program: [FilterInstruction], inAllThreads: Bool) throws(SystemError) {
        let instructions = program.map { instruction in
            cl_filter_instruction(
                code: instruction.code, jumpTrue: instruction.jumpTrue, jumpFalse: instruction.jumpFalse, operand: instruction.operand)
        }
        let result = instructions.withUnsafeBufferPointer { cl_install_filter($0.baseAddress, $0.count, inAllThreads ? 1 : 0) }
        guard result >= 0 else { throw SystemError(operation: "install a seccomp filter", errno: Errno(result: result)) }
    }
}

extension Host {
    /// The number of threads of this process; nil if /proc is not mounted.
    public static func threadCount() -> Int? {
        guard let tasks = try? FileDescriptor.open("/proc/self/task", [.readOnly, .directory]), let entries = try? tasks.entries() else {
            return nil
        }
        return entries.count
    }

    /// The numbers of this process's open descriptors. Without /proc it is empty.
    public static func openDescriptors() -> Set<Int32> {
        guard let list = try? FileDescriptor.open("/proc/self/fd", [.readOnly, .directory]), let entries = try? list.entries() else {
            return []
        }
        let own = list.raw
        return Set(entries.compactMap { Int32(String(decoding: $0.name.bytes, as: UTF8.self)) }.filter { $0 != own })
    }

    /// Shuts down every socket of the Internet protocols that this process has open (shutdown(2)), except those with these numbers. The
    /// descriptors stay open.
    public static func shutDownConnections(except kept: Set<Int32>) {
        for raw in openDescriptors() where !kept.contains(raw) { _ = cl_shut_down_connection(raw) }
    }
}
