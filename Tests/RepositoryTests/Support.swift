import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTestSupport
import Synchronization
import Testing

/// A directory for one test, removed with the value. On a file system with fs-verity if the variable names one.
final class Scratch: Sendable {
    private let folder: TestFolder
    var path: ByteString { folder.path }

    init() throws { folder = try TestFolder("repository", wantsVerity: true) }

    var repository: ByteString { path + "/repo" }

    func directory() throws -> FileDescriptor { try FileDescriptor.open(repository, [.readOnly, .directory]) }

    func create(
        _ algorithm: VerityAlgorithm = .sha256, default version: ErofsVersion = .v1, extra: [ErofsVersion] = [],
        verity: RepositoryConfiguration.Verity = .insecure
    ) throws -> Repository {
        try Repository.initialize(
            repository,
            RepositoryConfiguration(algorithm: algorithm, erofsFormats: ErofsFormats(default: version, extra: extra), verity: verity)
        ).repository
    }

    func open(_ options: OpenOptions = OpenOptions()) throws -> Repository { try Repository.open(repository, options) }

    func write(_ path: ByteString, _ bytes: [UInt8]) throws {
        try directory().open(at: path, [.writeOnly, .create, .truncate]).writeAll(bytes)
    }

    func read(_ path: ByteString) throws -> [UInt8] { try directory().open(at: path, .readOnly).readAll(limit: 1 << 26) }

    /// Everything in the repository: path, and target of links, size of files, nothing for directories.
    func listing(_ hidden: Bool = true) throws -> [String: String] {
        var all: [String: String] = [:]
        var pending: [ByteString] = [""]
        let root = try directory()
        while let next = pending.popLast() {
            for entry in try root.open(at: next.isEmpty ? "." : next, [.readOnly, .directory]).entries() {
                let path = next.isEmpty ? entry.name : next + "/" + entry.name
                if path.hasPrefix(".staging"), !hidden { continue }
                switch entry.kind {
                case .directory:
                    all[path.description] = "/"
                    pending.append(path)
                case .symbolicLink: all[path.description] = "-> " + (try root.readLink(at: path)).description
                default: all[path.description] = "\(try root.status(at: path).size)"
                }
            }
        }
        return all
    }
}

extension Repository {
    func store(_ bytes: [UInt8]) throws -> StoredObject { try bytes.withUnsafeBytes { try storeObject($0) } }

    /// A stream of some inline bytes and objects.
    func storeStream(
        inline: [UInt8] = Array("inline".utf8), objects: [StoredObject] = [], named: [(String, ObjectID)] = [],
        type: UInt64 = StreamContentType.layer
    ) throws -> StoredObject {
        var writer = SplitStreamWriter(algorithm: algorithm, contentType: type)
        for (name, id) in named { writer.addNamedReference(name, id) }
        try inline.withUnsafeBytes { try writer.inline($0) }
        for object in objects { try writer.external(object.id, size: object.size) }
        return try storeStream(writer)
    }
}

/// Content of `count` bytes that differs for every seed.
func content(_ count: Int, seed: UInt8 = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8)) &+ seed }
}

/// The error that `body` throws; nil if it throws none.
func failure(_ body: () throws -> Void) -> RepositoryError? {
    do {
        try body()
        return nil
    } catch {
        return error as? RepositoryError
    }
}

/// Sees the system calls that a task's own code makes, and can stop the world: every later call that would change something fails.
final class Recorder: SystemCallObserver {
    @TaskLocal static var current: Recorder?

    struct Call: Sendable {
        var kind: SystemCallKind
        var path: String
        var target: String
        var descriptor: String
    }

    private let calls = Mutex<[Call]>([])
    private let limit: Int
    private let count = Atomic<Int>(0)
    private let fault: Errno
    private let next: (any SystemCallObserver)?

    init(stopAfter limit: Int = .max, with fault: Errno = .inputOutput, forwarding next: (any SystemCallObserver)? = nil) {
        self.limit = limit
        self.fault = fault
        self.next = next
    }

    var recorded: [Call] { calls.withLock { $0 } }
    var isStopped: Bool { count.load(ordering: .relaxed) > limit }

    /// One observer for the process hands the calls to the recorder of the task they come from; tests may run side by side.
    private final class Dispatcher: SystemCallObserver {
        func before(_ call: SystemCall) -> Errno? { Recorder.current?.before(call) }
        func after(_ call: SystemCall, result: Int) { Recorder.current?.after(call, result: result) }
    }

    private static let dispatcher: Void = Kernel.observe(Dispatcher())

    func observe<Value>(_ body: () throws -> Value) rethrows -> Value {
        _ = Recorder.dispatcher
        return try Recorder.$current.withValue(self) { try body() }
    }

    func before(_ call: SystemCall) -> Errno? {
        // Opening changes nothing, so it is not counted.
        if call.kind == .open { return next?.before(call) }
        if let fault = next?.before(call) { return fault }
        return count.add(1, ordering: .relaxed).newValue > limit ? fault : nil
    }

    func after(_ call: SystemCall, result: Int) {
        next?.after(call, result: result)
        guard call.kind != .open, result >= 0 else { return }
        let record = Call(
            kind: call.kind, path: call.path.map { ByteString($0).description } ?? "",
            target: call.otherPath.map { ByteString($0).description } ?? "",
            descriptor: FileDescriptor.currentName(call.descriptor))
        calls.withLock { $0.append(record) }
    }
}

extension FileDescriptor {
    /// The kernel's name of a borrowed descriptor.
    static func currentName(_ raw: Int32) -> String {
        (try? FileDescriptor.currentDirectory.readLink(at: ByteString("/proc/self/fd/\(raw)")))?.description ?? ""
    }
}
