import ComposefsBytes
import ComposefsLinuxSystem
import Synchronization

/// Fails every change after the first ones, and sees whether what an entry needs is durable when it gets its name.
final class Cut: SystemCallObserver, Sendable {
    @TaskLocal static var current: Cut?
    private struct State {
        var calls = 0
        var dirty: Set<ByteString> = []
        var problems: [String] = []
    }
    private let state = Mutex(State())
    private let limit: Int

    init(after limit: Int) { self.limit = limit }

    var calls: Int { state.withLock { $0.calls } }
    var problems: [String] { state.withLock { $0.problems } }

    private final class Dispatcher: SystemCallObserver {
        func before(_ call: SystemCall) -> Errno? { Cut.current?.before(call) }
        func after(_ call: SystemCall, result: Int) { Cut.current?.after(call, result) }
    }
    private static let dispatcher: Void = Kernel.observe(Dispatcher())

    func observe(_ body: () throws -> Void) rethrows {
        _ = Cut.dispatcher
        try Cut.$current.withValue(self) { try body() }
    }

    func before(_ call: SystemCall) -> Errno? {
        guard call.kind != .open else { return nil }
        return state.withLock { state in
            state.calls += 1
            return state.calls > limit ? .inputOutput : nil
        }
    }

    func after(_ call: SystemCall, result: Int) { after(call, result) }

    private func name(_ descriptor: Int32) -> ByteString {
        (try? FileDescriptor.currentDirectory.readLink(at: ByteString("/proc/self/fd/\(descriptor)"))) ?? ""
    }

    private func after(_ call: SystemCall, _ result: Int) {
        guard result >= 0, call.kind != .open else { return }
        let directory = name(call.descriptor)
        let path = call.path.map { directory + "/" + ByteString($0) } ?? directory
        func parent(_ path: ByteString) -> ByteString { FileDescriptor.split(path).directory }
        state.withLock { state in
            switch call.kind {
            case .write: state.dirty.insert(directory)
            case .fsync: state.dirty.remove(directory)
            case .syncfs: state.dirty = []
            case .create: state.dirty.formUnion([path, parent(path)])
            case .makeDirectory: state.dirty.insert(parent(path))
            case .rename:
                let old = name(call.otherDescriptor) + "/" + (call.otherPath.map { ByteString($0) } ?? "")
                // What the directory of entries has pending is the unfinished file itself.
                if path.hasSuffix(".conf"), parent(path).hasSuffix("loader/entries") {
                    let missing = state.dirty.filter { $0 != parent(path) }
                    if !missing.isEmpty { state.problems.append("\(path) is named before \(missing) is durable") }
                }
                if state.dirty.remove(old) != nil { state.dirty.insert(path) }
                state.dirty.insert(parent(path))
            default: break
            }
        }
    }
}
