import ComposefsBytes
import ComposefsLinuxSystem
import Testing

@testable import ComposefsConfinement

/// The seccomp program, run by an interpreter of classic BPF as the kernel's documentation describes it (Documentation/networking/filter.rst).
struct FilterProgramTests {
    /// The answer to a call.
    private func run(_ program: [FilterInstruction], architecture: UInt32, number: UInt32, _ arguments: [UInt32] = []) throws -> UInt32 {
        var accumulator: UInt32 = 0
        var at = 0
        while at < program.count {
            let instruction = program[at]
            at += 1
            func jump(_ condition: Bool) { at += Int(condition ? instruction.jumpTrue : instruction.jumpFalse) }
            switch instruction.code {
            case 0x20:  // BPF_LD | BPF_W | BPF_ABS, from struct seccomp_data
                switch instruction.operand {
                case 0: accumulator = number
                case 4: accumulator = architecture
                default:
                    let argument = Int(instruction.operand - 16) / 8
                    accumulator = argument < arguments.count ? arguments[argument] : 0
                }
            case 0x15: jump(accumulator == instruction.operand)
            case 0x35: jump(accumulator >= instruction.operand)
            case 0x45: jump(accumulator & instruction.operand != 0)
            case 0x06: return instruction.operand
            default: throw UnknownCode(code: instruction.code)
            }
        }
        throw UnknownCode(code: 0)
    }

    private struct UnknownCode: Error { var code: UInt16 }

    /// Numbers of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
    private static let numbers: [String: UInt32] = [
        "read": 0, "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "socketpair": 53, "clone": 56, "execve": 59,
        "kill": 62, "ptrace": 101, "mount": 165, "umount2": 166, "unshare": 272, "accept4": 288, "execveat": 322, "bpf": 321, "ioctl": 16,
        "openat": 257, "mknod": 133, "mknodat": 259, "io_uring_setup": 425, "clone3": 435, "setns": 308, "fsopen": 430, "move_mount": 429,
    ]
    private static let x86: UInt32 = 0xc000_003e
    private let allowed: UInt32 = 0x7fff_0000
    private let notPermitted: UInt32 = 0x0005_0001
    private let noSystemCall: UInt32 = 0x0005_0026

    private func answer(_ confinement: Confinement, _ name: String, _ arguments: [UInt32] = []) throws -> UInt32 {
        let program = FilterProgram(confinement, architecture: Self.x86, hasX32Calls: true) { Self.numbers[$0] }
        return try run(program.instructions, architecture: Self.x86, number: try #require(Self.numbers[name]), arguments)
    }

    @Test func nothingIsLeftByDefault() throws {
        let confinement = Confinement()
        for name in [
            "socket", "connect", "bind", "listen", "accept", "accept4", "socketpair", "execve", "execveat", "kill", "ptrace", "mount",
            "umount2", "fsopen", "move_mount", "unshare", "setns", "bpf", "mknod", "mknodat",
        ] {
            #expect(try answer(confinement, name, [2]) == notPermitted, "\(name)")
        }
        for name in ["io_uring_setup", "clone3"] { #expect(try answer(confinement, name) == noSystemCall, "\(name)") }
        for name in ["read", "openat", "clone", "ioctl"] { #expect(try answer(confinement, name, [0, 0x6685]) == allowed, "\(name)") }
    }

    @Test func argumentsDecide() throws {
        let confinement = Confinement(usesNetwork: true, mounts: true)
        // AF_UNIX, AF_INET, AF_NETLINK, AF_INET6; AF_AX25, AF_PACKET, AF_VSOCK.
        for family in [1, 2, 16, 10] as [UInt32] { #expect(try answer(confinement, "socket", [family]) == allowed) }
        for family in [3, 17, 40] as [UInt32] { #expect(try answer(confinement, "socket", [family]) == 0x0005_0061) }
        #expect(try answer(confinement, "connect") == allowed)
        #expect(try answer(confinement, "mount") == allowed)
        #expect(try answer(confinement, "unshare", [0x0002_0000]) == allowed)
        // CLONE_NEWUSER
        for flags in [0x1000_0000, 0x1002_0000] as [UInt32] {
            #expect(try answer(confinement, "unshare", [flags]) == notPermitted)
            #expect(try answer(confinement, "clone", [flags | 17]) == notPermitted)
        }
        // A thread: CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | …
        #expect(try answer(confinement, "clone", [0x003d_0f00]) == allowed)
        // TIOCSTI and TIOCLINUX; FS_IOC_ENABLE_VERITY.
        for request in [0x5412, 0x541c] as [UInt32] { #expect(try answer(confinement, "ioctl", [0, request]) == notPermitted) }
        #expect(try answer(confinement, "ioctl", [0, 0x4080_6685]) == allowed)
        #expect(try answer(confinement, "execve") == notPermitted)
        #expect(try answer(Confinement(runsPrograms: true), "execve") == allowed)
        var nodes = Confinement()
        nodes.makesNodes = true
        for name in ["mknod", "mknodat"] { #expect(try answer(nodes, name) == allowed) }
    }

    /// A number means another call there.
    @Test func otherArchitecturesAreRefused() throws {
        let program = FilterProgram(Confinement(), architecture: Self.x86, hasX32Calls: true) { Self.numbers[$0] }.instructions
        // AUDIT_ARCH_I386, whose number 3 is read; and x32.
        #expect(try run(program, architecture: 0x4000_0003, number: 3) == noSystemCall)
        #expect(try run(program, architecture: Self.x86, number: 0x4000_0000) == noSystemCall)
        let later = FilterProgram.withoutNetwork(architecture: Self.x86, hasX32Calls: true) { Self.numbers[$0] }
        #expect(try run(later, architecture: 0x4000_0003, number: 3) == noSystemCall)
        for name in ["socket", "connect", "execve"] {
            #expect(try run(later, architecture: Self.x86, number: try #require(Self.numbers[name]), [2]) == notPermitted)
        }
        #expect(try run(later, architecture: Self.x86, number: 0) == allowed)
    }

    /// The names in the lists are those that this architecture knows, save a few that only x86 has.
    @Test func numbersAreKnown() {
        let onlyX86: Set<String> = ["ioperm", "iopl", "mknod", "modify_ldt", "uselib"]
        let names =
            FilterProgram.alwaysRefused + FilterProgram.nodeCalls + FilterProgram.mountCalls + FilterProgram.absent
            + FilterProgram.programCalls
            + FilterProgram.networkCalls + ["clone", "ioctl", "unshare", "socketpair"]
        for name in names where Host.architecture == "x86_64" || !onlyX86.contains(name) {
            #expect(SystemCallFilter.number(of: name) != nil, "\(name)")
        }
        #expect(SystemCallFilter.architecture != nil)
        if Host.architecture == "x86_64" {
            for (name, number) in Self.numbers where !["read", "openat"].contains(name) {
                #expect(SystemCallFilter.number(of: name) == number, "\(name)")
            }
        }
    }

    /// The test runner has threads, so the process cannot be confined: nothing is given up by half.
    @Test func onlyBeforeThereAreThreads() throws {
        try #require((Host.threadCount() ?? 0) > 1)
        let before = try FileDescriptor.open("/proc/thread-self/status", .readOnly).readAll(limit: 1 << 16)
        #expect(throws: ConfinementError.self) { try Confinement().apply() }
        func line(_ bytes: [UInt8]) -> String? {
            String(decoding: bytes, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("NoNewPrivs") }.map(String.init)
        }
        #expect(line(before) == line(try FileDescriptor.open("/proc/thread-self/status", .readOnly).readAll(limit: 1 << 16)))
    }
}
