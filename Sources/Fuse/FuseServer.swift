import ComposefsBytes
internal import ComposefsConcurrency
public import ComposefsEROFS
internal import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// Options of serving an image.
public struct FuseServerOptions: Sendable {
    /// Whether every object must have fs-verity, as in a secure repository.
    public var requireVerity: Bool
    /// The number of threads that answer requests; at least 1.
    public var threads: Int
    /// Whether files are opened when they are first read and not in the cache, instead of on every open(2). This is many times faster when
    /// many small files are read again and again. Contents are cached a second time, and a damaged file fails on read instead of on open.
    public var opensLazily: Bool
    /// Called with one line for every missing or damaged object, once per object, from any thread.
    public var report: @Sendable (String) -> Void
    /// Whether long reads move the object's pages to the kernel without a copy. False in tests, in which the other end is not the device.
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

/// Serves an image over a FUSE connection until it is unmounted.
public final class FuseServer: Sendable {
    private let device: FuseDevice
    private let fileSystem: ImageFileSystem
    private let options: FuseServerOptions

    /// Answers the kernel's first request, which negotiates the protocol version and features.
    ///
    /// - Parameters:
    ///   - image: An image, which was checked when it was opened.
    ///   - device: The device of a file system that was mounted or is being mounted.
    public init(
        _ image: ErofsImage, objects: some ObjectOpener, device: consuming FuseDevice, _ options: FuseServerOptions
    ) throws(FuseError) {
        let device = device
        let agreed = try Self.agree(device, options.opensLazily ? .wantedForLazyOpens : .wanted)
        var backings: Backings?
        if agreed.flags.contains(.passthrough), let own = try? device.duplicate() { backings = Backings(own) }
        // Most of the process's descriptors are used for recently read files. Each needs about 1 KiB of kernel memory.
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

    /// Answers requests on new threads and returns when the file system is unmounted.
    public func run() {
        let pool = WorkerPool(threads: options.threads)
        for _ in 0..<max(1, pool.threadCount) {
            pool.submit { [self] in
                // Each thread gets its own queue. If that is not possible, threads share one.
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
                // The client cancelled the request, or there was none.
                case .noEntry, .interrupted, .tryAgain: continue
                // The file system is unmounted, or the connection was aborted.
                default: return
                }
            }
            if count == 0 { return }
            answer(UnsafeRawBufferPointer(rebasing: input[..<min(count, input.count)]), output, device, &pipe)
        }
    }

    /// Handles one request completely.
    private func answer(
        _ bytes: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer, _ device: borrowing FuseDevice, _ pipe: inout SplicePipe?
    ) {
        guard let request = FuseRequest(bytes) else { return }
        var reply = FuseReply(output)
        // Verification uses the same memory before the reply is written to it.
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
            // The kernel discarded the reply, so it will not close the file.
            if opens { fileSystem.objects.close(request.node) }
        }
    }

    /// In bytes: for shorter reads, a copy is cheaper than the additional system calls.
    private static let shortestSplice = 1 << 16
    /// In bytes. Every user may have pipes of 1 MiB, but only a limited number of them.
    private static let pipeCapacity = 1 << 19

    /// Answers a read without copying the content. Returns false, with nothing sent, if that is not possible.
    private func splice(
        _ object: OpenObject, _ offset: UInt64, _ count: Int, _ reply: inout FuseReply, _ unique: UInt64, _ device: borrowing FuseDevice,
        _ pipe: inout SplicePipe?
    ) -> Bool {
        guard let position = Int64(exactly: offset), count <= Self.pipeCapacity - 4096 else { return false }
        // A pipe that may contain data after a failure is not used again.
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
        // A kernel with a newer major version sends FUSE_INIT again after it got this server's version.
        for _ in 0..<2 {
            let request = try receive(device, input)
            guard let asked = FuseInitialization(request) else { throw .protocolBroken("the first request is not FUSE_INIT") }
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
        throw .protocolBroken("there is no common protocol version")
    }

    /// struct fuse_init_out.
    static func write(_ reply: inout FuseReply, _ asked: FuseInitialization, _ flags: FuseFlags) {
        reply.integer(FuseProtocol.major)
        reply.integer(min(asked.minor, FuseProtocol.newestMinor))
        reply.integer(asked.maximumReadAhead)
        reply.integer(UInt32(truncatingIfNeeded: flags.rawValue))
        // The limit of background requests, and the threshold for congestion.
        reply.integer(64 as UInt16)
        reply.integer(48 as UInt16)
        // The longest write. There are no writes.
        reply.integer(4096 as UInt32)
        // The granularity of times is 1 ns.
        reply.integer(1 as UInt32)
        reply.integer(UInt16(FuseProtocol.maximumPages))
        reply.integer(0 as UInt16)
        reply.integer(UInt32(truncatingIfNeeded: flags.rawValue >> 32))
        // The allowed stacking depth: objects may be on a file system that is not stacked itself, and an overlay may use this mount.
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
                case .badMessage: throw .protocolBroken("invalid length")
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
