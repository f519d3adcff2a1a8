public import ComposefsBytes
internal import ComposefsCLinux

/// Two sockets that are connected to each other.
@frozen
public struct SocketPair: ~Copyable, Sendable {
    public var first: FileDescriptor
    public var second: FileDescriptor

    /// Closes the second.
    public consuming func keepFirst() -> FileDescriptor { first }
}

extension FileDescriptor {
    /// Two connected local stream sockets.
    public static func socketPair() throws(SystemError) -> SocketPair {
        var ends: (Int32, Int32) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &ends) { cl_socketpair($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        guard result >= 0 else { throw SystemError(operation: "create sockets", errno: Errno(result: result)) }
        return SocketPair(first: FileDescriptor(owning: ends.0), second: FileDescriptor(owning: ends.1))
    }

    /// A descriptor that comes over this socket (SCM_RIGHTS), waiting for it; ENODATA where the other end closed without one.
    public borrowing func receiveDescriptor() throws(SystemError) -> FileDescriptor {
        let result = cl_receive_descriptor(raw)
        guard let new = Int32(exactly: result), new >= 0 else {
            throw SystemError(operation: "receive a descriptor", errno: Errno(result: result))
        }
        return FileDescriptor(owning: new)
    }

    /// Makes another descriptor number of this process (0, 1, 2) stand for this open file.
    public borrowing func replace(_ number: Int32) throws(SystemError) {
        let result = cl_replace_descriptor(raw, number)
        guard result >= 0 else { throw SystemError("replace a descriptor by", result, at: raw, nil) }
    }
}

/// Another process that was started.
public struct ChildProcess: Sendable {
    public let number: Int32

    /// Starts a program, looked up in PATH where its name has no slash.
    ///
    /// Standard input is `/dev/null`, standard error the caller's, no other descriptor is passed on but the one given.
    /// - Parameters:
    ///   - environment: `NAME=value` each, in addition to the process's own.
    ///   - inherited: its descriptor 3, by the number of one that stays open during the call.
    ///   - isDetached: gives it a session of its own, and `/dev/null` for standard output.
    public static func start(
        _ program: ByteString, _ arguments: [ByteString], environment: [ByteString] = [], inherited: Int32? = nil, isDetached: Bool = false
    ) throws(SystemError) -> ChildProcess {
        let texts = [program] + arguments + environment
        guard !texts.contains(where: { $0.bytes.contains(0) }) else { throw SystemError("start", program, .invalidArgument) }
        var result = -Int(Errno.outOfMemory.rawValue)
        // One block with all texts, each ended by a NUL, and tables of pointers into it.
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

    /// Waits for its end; its exit status, or 128 + the signal that ended it.
    public func wait() throws(SystemError) -> Int32 {
        let result = cl_wait(number)
        guard result >= 0 else { throw SystemError(operation: "wait for a process", errno: Errno(result: result)) }
        return Int32(truncatingIfNeeded: result)
    }
}

extension Host {
    /// Opens `/dev/null` for each of the descriptors 0, 1 and 2 that the caller closed, so that no other file gets its number. Using it stays
    /// an error.
    public static func fillStandardDescriptors() { _ = cl_fill_standard_descriptors() }

    /// From now on memory of at least `size` bytes that is freed goes back to the system at once. glibc keeps it as soon as blocks of that
    /// size have been freed once, so that a process's peak becomes the sum of the peaks of all it has done.
    public static func returnsFreedMemory(ofAtLeast size: Int32) { cl_map_large_blocks(size) }

    /// Whether the process ignores a signal, by its number.
    public static func ignores(signal: Int32) -> Bool { cl_is_ignored(signal) == 1 }

    /// For posix_spawn(3): a child made with these actions (a `posix_spawn_file_actions_t`) has no descriptor from `first` on. Returns an errno or 0.
    package static func closeDescriptors(from first: Int32, in actions: UnsafeMutableRawPointer) -> Int32 {
        cl_spawn_close_from(actions, first)
    }

    /// From now on SIGINT, SIGTERM and SIGHUP do not end this thread, nor those that it starts: `waitForEndSignal` takes them. Those that the
    /// process ignores (nohup) stay ignored.
    public static func blockEndSignals() { _ = cl_block_end_signals() }

    /// Waits for SIGINT, SIGTERM or SIGHUP, which must be blocked in all threads; returns its number.
    public static func waitForEndSignal() -> Int32 { Int32(truncatingIfNeeded: cl_wait_end_signal()) }

    /// Lets this process have as many descriptors as it may allow itself; returns how many that are.
    @discardableResult
    public static func raiseDescriptorLimit() -> Int { max(cl_raise_descriptor_limit(), 0) }

    /// Makes a directory the process's current one.
    public static func changeDirectory(to path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { cl_chdir($0.baseAddress, $0.count) }
        guard result >= 0 else { throw SystemError("change to", path, Errno(result: result)) }
    }
}
