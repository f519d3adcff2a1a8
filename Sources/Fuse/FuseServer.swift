import ComposefsBytes
internal import ComposefsConcurrency
public import ComposefsEROFS
internal import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// How an image is served.
public struct FuseServerOptions: Sendable {
    /// Every object must have fs-verity: what a secure repository promises.
    public var requireVerity: Bool
    /// Threads that answer; at least 1.
    public var threads: Int
    /// The kernel asks for a file when it is read and not in its cache, instead of whenever it is opened. Many times faster for many small
    /// files that are read again and again; contents are cached a second time, and a damaged file fails when it is read, not when opened.
    public var opensLazily: Bool
    /// Told in one line about every object that is missing or damaged, once each, from any thread.
    public var report: @Sendable (String) -> Void
    /// Long reads are moved from the object's pages to the kernel's without a copy; off where the other end is not the device.
    var splices = true

    public init(
        requireVerity: Bool = false, threads: Int? = nil, opensLazily: Bool = false, report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.requireVerity = requireVerity
        self.opensLazily = opensLazily
        self.threads = max(1, threads ?? min(16, max(4, 2 * Host.processorCount)))
        self.report = report
    }
}

/// Serves an image over a FUSE connection, until it is unmounted.
public final class FuseServer: Sendable {
    private let device: FuseDevice
    private let fileSystem: ImageFileSystem
    private let options: FuseServerOptions

    /// Answers the kernel's first request, which settles what both can do.
    ///
    /// - Parameters:
    ///   - image: checked when it was opened.
    ///   - device: of a file system that was made or is being made.
    public init(
        _ image: ErofsImage, objects: some ObjectOpener, device: consuming FuseDevice, _ options: FuseServerOptions
    ) throws(FuseError) {
        let device = device
        let agreed = try Self.agree(device, options.opensLazily ? .wantedForLazyOpens : .wanted)
        var backings: Backings?
        if agreed.flags.contains(.passthrough), let own = try? device.duplicate() { backings = Backings(own) }
        // Most of what the process may have open goes to files that were read not long ago. Each keeps about 1 KiB of the kernel's memory.
        let limit = Host.raiseDescriptorLimit()
        let capacity = min(32_768, limit > 4096 ? limit - 1024 : max(16, limit / 2))
        let files = ObjectFiles(objects, ObjectVerifier(requireVerity: options.requireVerity), backings, capacity: capacity)
        let reported = Mutex<Set<String>>([])
        let report = options.report
        fileSystem = ImageFileSystem(
            image, files, showsTrusted: Host.hasCapability(.systemAdmin) && Host.isInFirstUserNamespace,
            needsNoOpen: agreed.flags.contains(.noOpenSupport), needsNoOpenDirectory: agreed.flags.contains(.noOpenDirectorySupport)
        ) { line in
            let isNew = reported.withLock { reported in reported.count < 10_000 && reported.insert(line).inserted }
            if isNew { report(line) }
        }
        self.device = device
        self.options = options
    }

    /// Answers requests on threads of its own; returns once the file system is unmounted.
    public func run() {
        let pool = WorkerPool(threads: options.threads)
        for _ in 0..<max(1, pool.threadCount) {
            pool.submit { [self] in
                // A queue of its own for each thread; where that is not to be had, threads share one.
                if let own = try? device.clone() { serve(own) } else { serve(device) }
            }
        }
        pool.shutdown()
    }

    private func serve(_ device: borrowing FuseDevice) {
        let size = FuseProtocol.requestBufferSize + FuseProtocol.replyHeaderSize + FuseProtocol.maximumRead
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { memory.deallocate() }
        let input = UnsafeMutableRawBufferPointer(rebasing: memory[..<FuseProtocol.requestBufferSize])
        let output = UnsafeMutableRawBufferPointer(rebasing: memory[FuseProtocol.requestBufferSize...])
        var pipe: SplicePipe?
        while true {
            let count: Int
            do throws(Errno) {
                count = try device.receive(into: input)
            } catch {
                switch error {
                // Taken back by its client, or nothing there.
                case .noEntry, .interrupted, .tryAgain: continue
                // Unmounted, or the connection was cut.
                default: return
                }
            }
            if count == 0 { return }
            answer(UnsafeRawBufferPointer(rebasing: input[..<min(count, input.count)]), output, device, &pipe)
        }
    }

    /// Handles one request from beginning to end.
    private func answer(
        _ bytes: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer, _ device: borrowing FuseDevice, _ pipe: inout SplicePipe?
    ) {
        guard let request = FuseRequest(bytes) else { return }
        var reply = FuseReply(output)
        // Verifying reads into the same memory before anything is written there.
        let space = UnsafeMutableRawBufferPointer(rebasing: output[FuseProtocol.replyHeaderSize...])
        let message: UnsafeRawBufferPointer
        var opens = false
        switch fileSystem.handle(request, &reply, space) {
        case .silent: return
        case .reply:
            opens = request.operation == .open
            message = reply.finish(request.unique)
        case .error(let error): message = reply.finish(request.unique, error: error.rawValue)
        case .content(let object, let offset, let count, let closes):
            defer { if closes { fileSystem.objects.close(request.node) } }
            if options.splices, count >= Self.shortestSplice, object.isUnchanged,
                splice(object, offset, count, &reply, request.unique, device, &pipe)
            {
                return
            }
            let error = fileSystem.copy(object, from: offset, count, of: request, &reply, space)
            message = reply.finish(request.unique, error: error?.rawValue ?? 0)
        }
        do throws(Errno) {
            try device.send(message)
        } catch {
            // Nobody will close what nobody got.
            if opens { fileSystem.objects.close(request.node) }
        }
    }

    /// Below this a copy costs less than the calls that avoid it. Bytes.
    private static let shortestSplice = 1 << 16
    /// Every user may have pipes of 1 MiB, but not without end.
    private static let pipeCapacity = 1 << 19

    /// Answers a read without copying the content; false, with nothing sent, where that is not possible.
    private func splice(
        _ object: OpenObject, _ offset: UInt64, _ count: Int, _ reply: inout FuseReply, _ unique: UInt64, _ device: borrowing FuseDevice,
        _ pipe: inout SplicePipe?
    ) -> Bool {
        guard let position = Int64(exactly: offset), count <= Self.pipeCapacity - 4096 else { return false }
        // One that a failure left something in is not used again.
        guard let own = pipe.take() ?? (try? SplicePipe(capacity: Self.pipeCapacity)), own.capacity >= Self.pipeCapacity else {
            return false
        }
        let header = reply.finish(unique, following: count)
        guard own.send(header, object.file, at: position, count: count, to: device) else { return false }
        pipe = .some(own)
        return true
    }

    // MARK: Beginning

    private struct Agreement {
        var flags: FuseFlags
    }

    /// FUSE_INIT.
    private static func agree(_ device: borrowing FuseDevice, _ wanted: FuseFlags) throws(FuseError) -> Agreement {
        let input = UnsafeMutableRawBufferPointer.allocate(byteCount: FuseProtocol.requestBufferSize, alignment: 8)
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 8)
        defer {
            input.deallocate()
            output.deallocate()
        }
        // A newer major version is answered with ours, and asks again.
        for _ in 0..<2 {
            let request = try receive(device, input)
            guard let asked = FuseInitialization(request) else { throw .protocolBroken("the first is not FUSE_INIT") }
            var reply = FuseReply(output)
            if asked.major > FuseProtocol.major {
                reply.integer(FuseProtocol.major)
                reply.integer(FuseProtocol.newestMinor)
                reply.zeros(FuseProtocol.initReplySize - 8)
                try send(reply.finish(request.unique), device)
                continue
            }
            guard asked.major == FuseProtocol.major, asked.minor >= FuseProtocol.oldestMinor else {
                try send(reply.finish(request.unique, error: Errno.protocolError.rawValue), device)
                throw .kernelTooOld(major: asked.major, minor: asked.minor)
            }
            let flags = asked.flags.intersection(wanted)
            Self.write(&reply, asked, flags)
            try send(reply.finish(request.unique), device)
            return Agreement(flags: flags)
        }
        throw .protocolBroken("no version that both know")
    }

    /// struct fuse_init_out.
    static func write(_ reply: inout FuseReply, _ asked: FuseInitialization, _ flags: FuseFlags) {
        reply.integer(FuseProtocol.major)
        reply.integer(min(asked.minor, FuseProtocol.newestMinor))
        reply.integer(asked.maximumReadAhead)
        reply.integer(UInt32(truncatingIfNeeded: flags.rawValue))
        // Requests in the background at once, and how many of them are a lot.
        reply.integer(64 as UInt16)
        reply.integer(48 as UInt16)
        // Longest write: there are none.
        reply.integer(4096 as UInt32)
        // Times are in units of 1 ns.
        reply.integer(1 as UInt32)
        reply.integer(UInt16(FuseProtocol.maximumPages))
        reply.integer(0 as UInt16)
        reply.integer(UInt32(truncatingIfNeeded: flags.rawValue >> 32))
        // How many file systems may be stacked: objects may be on any that is not stacked itself, and an overlay may use this mount.
        reply.integer(flags.contains(.passthrough) ? 1 : 0 as UInt32)
        reply.zeros(24)
    }

    private static func receive(_ device: borrowing FuseDevice, _ buffer: UnsafeMutableRawBufferPointer) throws(FuseError) -> FuseRequest {
        while true {
            do throws(Errno) {
                let count = try device.receive(into: buffer)
                guard let request = FuseRequest(UnsafeRawBufferPointer(rebasing: buffer[..<min(count, buffer.count)])) else {
                    throw Errno.badMessage
                }
                return request
            } catch {
                switch error {
                case .noEntry, .interrupted, .tryAgain: continue
                case .badMessage: throw .protocolBroken("its length is wrong")
                default: throw .system(SystemError("read", "/dev/fuse", error))
                }
            }
        }
    }

    private static func send(_ message: UnsafeRawBufferPointer, _ device: borrowing FuseDevice) throws(FuseError) {
        do throws(Errno) {
            try device.send(message)
        } catch {
            throw .system(SystemError("write", "/dev/fuse", error))
        }
    }
}
