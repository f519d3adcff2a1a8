import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Glibc
import Synchronization

@testable import ComposefsFuse

/// Objects in memory, opened as unnamed files.
final class MemoryObjects: ObjectOpener {
    private let contents = Mutex<[ObjectID: [UInt8]]>([:])
    let opens = Atomic<Int>(0)
    /// The file as which an object was last opened, for tests that change it while the server uses it.
    private let files = Guarded<[ObjectID: Int32]>([:])
    /// Whether that file is opened again, instead of a new one with the object's content.
    let keepsFiles = Atomic<Bool>(false)

    deinit { for file in files.change({ $0.values }) { close(file) } }

    func file(of id: ObjectID) -> Int32 { files.change { $0[id] ?? -1 } }

    func add(_ bytes: [UInt8], as id: ObjectID? = nil) -> ObjectID {
        let id = id ?? bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        contents.withLock { $0[id] = bytes }
        return id
    }

    /// The error for every open.
    let refusal = Mutex<String?>(nil)

    func openObject(_ id: ObjectID) throws(ObjectOpenError) -> FileDescriptor {
        opens.add(1, ordering: .relaxed)
        if let refusal = refusal.withLock({ $0 }) { throw .refused(refusal) }
        do throws(SystemError) { return try open(id) } catch { throw .system(error) }
    }

    private func open(_ id: ObjectID) throws(SystemError) -> FileDescriptor {
        guard let bytes = contents.withLock({ $0[id] }) else { throw SystemError("open", ByteString(id.hex), .noEntry) }
        if keepsFiles.load(ordering: .relaxed), let file = files.change({ $0[id] }) {
            return try FileDescriptor.open(ByteString("/proc/self/fd/\(file)"), .readOnly)
        }
        let file = try FileDescriptor.open("/tmp", [.readOnly, .directory]).openTemporary()
        try file.writeAll(bytes)
        let copy = try file.duplicate().release()
        if let old = files.change({ $0.updateValue(copy, forKey: id) }) { close(old) }
        return file
    }
}

/// A request as the kernel writes it.
func request(_ operation: FuseOperation, _ unique: UInt64, node: UInt64 = 1, uid: UInt32 = 0, _ arguments: [UInt8] = []) -> [UInt8] {
    request(operation.rawValue, unique, node: node, uid: uid, arguments)
}

func request(_ operation: UInt32, _ unique: UInt64, node: UInt64 = 1, uid: UInt32 = 0, _ arguments: [UInt8] = []) -> [UInt8] {
    var writer = ByteWriter()
    writer.u32(UInt32(40 + arguments.count))
    writer.u32(operation)
    writer.u64(unique)
    writer.u64(node)
    writer.u32(uid)
    writer.u32(0)
    writer.u32(4711)
    writer.u32(0)
    writer.append(arguments)
    return writer.bytes
}

func fields(_ build: (inout ByteWriter) -> Void) -> [UInt8] {
    var writer = ByteWriter()
    build(&writer)
    return writer.bytes
}

func text(_ name: ByteString) -> [UInt8] { name.bytes + [0] }

/// FUSE_INIT as Linux 6.18 sends it: 7.45, read-ahead 128 KiB.
func initialization(major: UInt32 = 7, minor: UInt32 = 45, flags: UInt64 = .max) -> [UInt8] {
    request(
        .initialize, 2, node: 0,
        fields {
            $0.u32(major)
            $0.u32(minor)
            $0.u32(131_072)
            $0.u32(UInt32(truncatingIfNeeded: flags))
            $0.u32(UInt32(truncatingIfNeeded: flags >> 32))
            $0.zeros(44)
        })
}

func readArguments(offset: UInt64 = 0, size: UInt32) -> [UInt8] {
    fields {
        $0.u64(0)
        $0.u64(offset)
        $0.u32(size)
        $0.zeros(20)
    }
}

struct Reply: Equatable {
    var error: Int32
    var unique: UInt64
    var body: [UInt8]

    init?(_ bytes: [UInt8]) {
        guard bytes.count >= 16, bytes.integer(0, UInt32.self) == UInt32(bytes.count) else { return nil }
        error = bytes.integer(4, Int32.self)
        unique = bytes.integer(8, UInt64.self)
        body = Array(bytes[16...])
    }
}

extension [UInt8] {
    func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Value.Type) -> Value {
        guard offset + MemoryLayout<Value>.size <= count else { return 0 }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Value.self) }
    }
}

/// A server for which the test plays the kernel, over a socket that preserves message boundaries as the device does.
final class Conversation {
    private let socket: Int32
    private let server: FuseServer
    private let thread: Guarded<Bool>
    let agreed: Reply?

    init(
        _ tree: FileTree, _ version: ErofsVersion = .v1, objects: MemoryObjects = MemoryObjects(), requireVerity: Bool = false,
        opensLazily: Bool = false,
        first: [UInt8] = initialization(flags: ~FuseFlags.passthrough.rawValue), report: @escaping @Sendable (String) -> Void = { _ in }
    ) throws {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0 else { throw Errno.invalidArgument }
        // Longer than the longest reply.
        for end in ends {
            var size: Int32 = 4 << 20
            setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &size, 4)
            var timeout = timeval(tv_sec: 20, tv_usec: 0)
            if end == ends[0] { setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size)) }
        }
        socket = ends[0]
        _ = first.withUnsafeBytes { write(ends[0], $0.baseAddress, $0.count) }
        let image = try ErofsImage(try writeErofs(tree, version: version))
        do {
            var options = FuseServerOptions(requireVerity: requireVerity, threads: 2, opensLazily: opensLazily, report: report)
            options.splices = false
            server = try FuseServer(
                image, objects: objects, device: FuseDevice(owning: FileDescriptor(owning: ends[1])), options)
        } catch {
            close(ends[0])
            throw error
        }
        agreed = Self.receive(socket)
        let isDone = Guarded(false)
        thread = isDone
        let server = server
        _ = startThread("server") {
            server.run()
            isDone.change { $0 = true }
        }
    }

    deinit { finish() }

    private static func receive(_ socket: Int32) -> Reply? {
        var buffer = [UInt8](repeating: 0, count: 2 << 20)
        var count = recv(socket, &buffer, buffer.count, 0)
        // With a timeout, recv(2) also ends when the process was stopped and continues (signal(7)).
        while count < 0, errno == EINTR { count = recv(socket, &buffer, buffer.count, 0) }
        return count > 0 ? Reply(Array(buffer[..<count])) : nil
    }

    func send(_ bytes: [UInt8]) { _ = bytes.withUnsafeBytes { write(socket, $0.baseAddress, $0.count) } }
    func receive() -> Reply? { Self.receive(socket) }

    func ask(_ bytes: [UInt8]) -> Reply? {
        send(bytes)
        return receive()
    }

    private var unique: UInt64 = 100

    func ask(_ operation: FuseOperation, node: UInt64 = 1, uid: UInt32 = 0, _ arguments: [UInt8] = []) -> Reply? {
        unique += 2
        let reply = ask(request(operation, unique, node: node, uid: uid, arguments))
        return reply?.unique == unique ? reply : nil
    }

    /// The node of a path.
    func node(_ path: ByteString) -> UInt64? {
        var node: UInt64 = 1
        for name in path.bytes.split(separator: UInt8(ascii: "/")) {
            guard let reply = ask(.lookup, node: node, text(ByteString(name))), reply.error == 0 else { return nil }
            node = reply.body.integer(0, UInt64.self)
            if node == 0 { return nil }
        }
        return node
    }

    /// Closes the connection, as an unmount does. True once the server has ended.
    @discardableResult
    func finish() -> Bool {
        shutdown(socket, Int32(SHUT_RDWR))
        let isDone = thread.wait { (done, _) -> Bool? in done ? true : nil }
        close(socket)
        return isDone
    }
}
