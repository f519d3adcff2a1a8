internal import ComposefsLinuxSystem

/// The seccomp filter of a confinement, as a program for the kernel (Documentation/userspace-api/seccomp_filter.rst).
///
/// It lists what is refused. A list of what is allowed would have to know which system calls the C library, libcurl and OpenSSL of every
/// distribution use. Refused calls fail with EPERM; those for which a library has another way fail with ENOSYS, as on a kernel without them.
struct FilterProgram {
    // linux/bpf_common.h, linux/seccomp.h, linux/sched.h, asm-generic/ioctls.h, bits/socket.h.
    private enum Code {
        static let load: UInt16 = 0x20
        static let jumpIfEqual: UInt16 = 0x15
        static let jumpIfAtLeast: UInt16 = 0x35
        static let jumpIfAnyBit: UInt16 = 0x45
        static let finish: UInt16 = 0x06
    }
    private enum Offset {
        static let number: UInt32 = 0
        static let architecture: UInt32 = 4
        /// The lower half of an argument on a little-endian machine, which x86-64 and AArch64 are here.
        static func argument(_ index: UInt32) -> UInt32 { 16 + 8 * index }
    }
    enum Answer {
        static let allow: UInt32 = 0x7fff_0000
        static let notPermitted: UInt32 = 0x0005_0000 | 1
        static let noSystemCall: UInt32 = 0x0005_0000 | 38
        static let noAddressFamily: UInt32 = 0x0005_0000 | 97
    }
    private static let firstX32Number: UInt32 = 0x4000_0000
    private static let newNamespaces: UInt32 = 0x7e02_0000
    private static let newMountNamespace: UInt32 = 0x0002_0000
    /// AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, with which the C library looks up the machine's addresses.
    private static let addressFamilies: [UInt32] = [1, 2, 10, 16]
    /// TIOCSTI and TIOCLINUX put characters into the input of a terminal.
    private static let terminalInput: [UInt32] = [0x5412, 0x541c]

    /// Changes to the machine, looking into other processes, and interfaces of the kernel with a history of faults.
    static let alwaysRefused = [
        "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
        "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "modify_ldt",
        "open_by_handle_at", "perf_event_open", "personality", "pidfd_getfd", "pivot_root", "process_vm_readv", "process_vm_writev",
        "ptrace", "quotactl", "quotactl_fd", "reboot", "request_key", "setdomainname", "setfsgid", "setfsuid", "setgid", "setgroups",
        "sethostname", "setns", "setregid", "setresgid", "setresuid", "setreuid", "settimeofday", "setuid", "swapoff", "swapon", "syslog",
        "uselib", "userfaultfd", "vhangup",
    ]
    static let nodeCalls = ["mknod", "mknodat"]
    static let mountCalls = [
        "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "umount2",
    ]
    /// clone3 passes its flags in memory, which a filter cannot see; io_uring makes other system calls past the filter.
    static let absent = ["clone3", "io_uring_enter", "io_uring_register", "io_uring_setup"]
    static let programCalls = ["execve", "execveat", "kill", "pidfd_send_signal", "rt_sigqueueinfo"]
    static let networkCalls = ["accept", "accept4", "bind", "connect", "listen", "socket"]

    private(set) var instructions: [FilterInstruction] = []
    private let number: (String) -> UInt32?

    /// - Parameter number: the number of a system call by name; nil for one that the architecture lacks.
    init(_ confinement: Confinement, architecture: UInt32, hasX32Calls: Bool, number: @escaping (String) -> UInt32?) {
        self.number = number
        begin(architecture, hasX32Calls)
        for name in Self.alwaysRefused { answer(name, Answer.notPermitted) }
        for name in Self.absent { answer(name, Answer.noSystemCall) }
        if !confinement.makesNodes { for name in Self.nodeCalls { answer(name, Answer.notPermitted) } }
        if !confinement.runsPrograms { for name in Self.programCalls { answer(name, Answer.notPermitted) } }
        refuse("clone", argument: 0, anyBitOf: Self.newNamespaces)
        allow("ioctl", argument: 1, allBut: Self.terminalInput)
        if confinement.mounts {
            allow("unshare", argument: 0, only: [Self.newMountNamespace], else: Answer.notPermitted)
        } else {
            for name in Self.mountCalls + ["unshare"] { answer(name, Answer.notPermitted) }
        }
        if confinement.usesNetwork {
            allow("socket", argument: 0, only: Self.addressFamilies, else: Answer.noAddressFamily)
        } else {
            for name in Self.networkCalls { answer(name, Answer.notPermitted) }
            // fusermount3 passes the device of its mount over a pair of sockets.
            if !confinement.mounts { answer("socketpair", Answer.notPermitted) }
        }
        finish(Answer.allow)
    }

    /// What is refused in addition once the network is not needed any more; programs were needed for credentials.
    static func withoutNetwork(architecture: UInt32, hasX32Calls: Bool, number: @escaping (String) -> UInt32?) -> [FilterInstruction] {
        var program = FilterProgram(number: number)
        program.begin(architecture, hasX32Calls)
        for name in networkCalls + programCalls { program.answer(name, Answer.notPermitted) }
        program.finish(Answer.allow)
        return program.instructions
    }

    private init(number: @escaping (String) -> UInt32?) { self.number = number }

    // MARK: Instructions

    private mutating func load(_ offset: UInt32) { instructions.append(FilterInstruction(Code.load, offset)) }
    private mutating func finish(_ answer: UInt32) { instructions.append(FilterInstruction(Code.finish, answer)) }

    /// Skips the next `count` instructions unless the loaded value is `value`.
    private mutating func skip(_ count: UInt8, unless value: UInt32) {
        instructions.append(FilterInstruction(Code.jumpIfEqual, value, jumpFalse: count))
    }

    /// Refuses the calls of other architectures, whose numbers mean something else, then loads the number.
    private mutating func begin(_ architecture: UInt32, _ hasX32Calls: Bool) {
        load(Offset.architecture)
        instructions.append(FilterInstruction(Code.jumpIfEqual, architecture, jumpTrue: 1))
        finish(Answer.noSystemCall)
        load(Offset.number)
        guard hasX32Calls else { return }
        instructions.append(FilterInstruction(Code.jumpIfAtLeast, Self.firstX32Number, jumpFalse: 1))
        finish(Answer.noSystemCall)
    }

    private mutating func answer(_ name: String, _ answer: UInt32) {
        guard let number = number(name) else { return }
        skip(1, unless: number)
        finish(answer)
    }

    private mutating func refuse(_ name: String, argument: UInt32, anyBitOf bits: UInt32) {
        guard let number = number(name) else { return }
        skip(4, unless: number)
        load(Offset.argument(argument))
        instructions.append(FilterInstruction(Code.jumpIfAnyBit, bits, jumpFalse: 1))
        finish(Answer.notPermitted)
        finish(Answer.allow)
    }

    private mutating func allow(_ name: String, argument: UInt32, allBut values: [UInt32]) {
        decide(name, argument: argument, among: values, Answer.notPermitted, else: Answer.allow)
    }

    private mutating func allow(_ name: String, argument: UInt32, only values: [UInt32], else answer: UInt32) {
        decide(name, argument: argument, among: values, Answer.allow, else: answer)
    }

    /// One answer if the argument is one of the values, and another if not.
    private mutating func decide(_ name: String, argument: UInt32, among values: [UInt32], _ answer: UInt32, else other: UInt32) {
        guard let number = number(name) else { return }
        skip(UInt8(2 + 2 * values.count), unless: number)
        load(Offset.argument(argument))
        for value in values {
            skip(1, unless: value)
            finish(answer)
        }
        finish(other)
    }
}
