public import ComposefsBytes
internal import ComposefsCLinux

/// A pair of connected sockets.
@frozen
public struct SocketPair: ~Copyable, Sendable {
    public var first: FileDescriptor
    public var second: FileDescriptor

    /// Closes the second socket and returns the first.
    public consuming func keepFirst() -> FileDescriptor { first }
}

extension FileDescriptor {
    /// Creates two connected stream sockets (socketpair(2)).
    public static func socketPair() throws(SystemError) -> SocketPair {
        var ends: (Int32, Int32) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &ends) { cl_socketpair($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        guard result >= 0 else { throw SystemError(operation: "create sockets", errno: Errno(result: result)) }
        return SocketPair(first: FileDescriptor(owning: ends.0), second: FileDescriptor(owning: ends.1))
    }

    /// Waits for a descriptor from this socket (SCM_RIGHTS). ENODATA if the peer closed its end without sending one.
    public borrowing func receiveDescriptor() throws(SystemError) -> FileDescriptor {
        let result = cl_receive_descriptor(raw)
        guard let new = Int32(exactly: result), new >= 0 else {
            throw SystemError(operation: "receive a descriptor", errno: Errno(result: result))
        }
        return FileDescriptor(owning: new)
    }

    /// Makes another descriptor number of this process (0, 1, 2) refer to this open file.
    public borrowing func replace(_ number: Int32) throws(SystemError) {
        let result = cl_replace_descriptor(raw, number)
        guard result >= 0 else { throw SystemError("replace a descriptor by", result, at: raw, nil) }
    }
}

/// A child process.
public struct ChildProcess: Sendable {
    public let number: Int32

    /// Starts a program, which is looked up in PATH if its name contains no slash.
    ///
    /// Standard input is `/dev/null`, standard error is inherited, and no other descriptor is passed except `inherited`.
    /// - Parameters:
    ///   - environment: Entries `NAME=value`, in addition to the environment of this process.
    ///   - inherited: The number of a descriptor that becomes the child's descriptor 3. It must stay open during the call.
    ///   - isDetached: Whether the child gets its own session, and `/dev/null` as standard output.
    public static func start(
        _ program: ByteString, _ arguments: [ByteString], environment: [ByteString] = [], inherited: Int32? = nil, isDetached: Bool = false
    ) throws(SystemError) -> ChildProcess {
        let texts = [program] + arguments + environment
        guard !texts.contains(where: { $0.bytes.contains(0) }) else { throw SystemError("start", program, .invalidArgument) }
        var result = -Int(Errno.outOfMemory.rawValue)
        // One block holds all texts, each NUL-terminated. The tables contain pointers into it.
        var block: [CChar] = []
        var starts: [Int] = []
        for text in texts {
            starts.append(block.count)
            block += text.bytes.map { CChar(bitPattern: $0) } + [0]
        }
        block.withUnsafeMutableBufferPointer { block in
            guard let base = block.baseAddress else { return }
            var argv: [UnsafeMutablePointer<CChar>?] = starts[...arguments.count].map { base + $0 }
            var envp: [UnsafeMutablePointer<CChar>?] = starts[(arguments.count + 1)...].map { base + $0 }
            if var own = cl_environment_list() {
                while let variable = own.pointee {
                    envp.append(variable)
                    own += 1
                }
            }
            argv.append(nil)
            envp.append(nil)
            result = cl_spawn(base, argv, envp, inherited ?? -1, isDetached ? 1 : 0, isDetached ? 1 : 0)
        }
        guard let number = Int32(exactly: result), number > 0 else { throw SystemError("start", program, Errno(result: result)) }
        return ChildProcess(number: number)
    }

    /// Waits for the process to end. Returns its exit status, or 128 + the number of the signal that ended it.
    public func wait() throws(SystemError) -> Int32 {
        let result = cl_wait(number)
        guard result >= 0 else { throw SystemError(operation: "wait for a process", errno: Errno(result: result)) }
        return Int32(truncatingIfNeeded: result)
    }
}

extension Host {
    /// Opens `/dev/null` for each of the descriptors 0, 1 and 2 that is closed, so that no other file gets its number. Using it remains an
    /// error.
    public static func fillStandardDescriptors() { _ = cl_fill_standard_descriptors() }

    /// Makes room for this number of open descriptors, if the limit allows it. In a process with several threads, the kernel waits for milliseconds
    /// each time that the table of descriptors becomes too small (expand_fdtable in fs/file.c), so a program calls this before it starts one.
    public static func makeRoom(forDescriptors count: Int32) { cl_grow_descriptor_table(count) }

    /// Makes freed blocks of at least `size` bytes return to the system at once. By default glibc keeps them once blocks of that size have
    /// been freed, so that the process's peak memory becomes the sum of the peaks of all its operations.
    public static func returnsFreedMemory(ofAtLeast size: Int32) { cl_map_large_blocks(size) }

    /// Whether the process ignores a signal, by number.
    public static func ignores(signal: Int32) -> Bool { cl_is_ignored(signal) == 1 }

    /// For posix_spawn(3): closes all descriptors from `first` in a child started with these actions (`posix_spawn_file_actions_t`).
    /// Returns 0 or an errno.
    package static func closeDescriptors(from first: Int32, in actions: UnsafeMutableRawPointer) -> Int32 {
        cl_spawn_close_from(actions, first)
    }

    /// Blocks SIGINT, SIGTERM and SIGHUP in this thread and in the threads that it starts from now on, for `waitForEndSignal`. Signals that
    /// the process ignores (nohup) stay ignored.
    public static func blockEndSignals() { _ = cl_block_end_signals() }

    /// Waits for SIGINT, SIGTERM or SIGHUP, which must be blocked in all threads. Returns the signal's number.
    public static func waitForEndSignal() -> Int32 { Int32(truncatingIfNeeded: cl_wait_end_signal()) }

    /// How many descriptors the process may have open: the soft limit of RLIMIT_NOFILE (getrlimit(2)).
    static var descriptorLimit: Int { max(cl_descriptor_limit(), 0) }

    /// Raises the soft limit of open descriptors to the hard limit and returns it.
    @discardableResult
    public static func raiseDescriptorLimit() -> Int { max(cl_raise_descriptor_limit(), 0) }

    /// Changes the process's current directory.
    public static func changeDirectory(to path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { cl_chdir($0.baseAddress, $0.count) }
        guard result >= 0 else { throw SystemError("change to", path, Errno(result: result)) }
    }
}
