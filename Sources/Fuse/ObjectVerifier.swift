internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsEROFS
public import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// Provides the objects that have the content of an image's files.
public protocol ObjectOpener: Sendable {
    /// Opens an object for reading without checking its content. Throws `.noEntry` if it does not exist.
    func openObject(_ id: ObjectID) throws(ObjectOpenError) -> FileDescriptor
}

/// The reason why an object cannot be opened.
public enum ObjectOpenError: Error, Sendable, Hashable {
    case system(SystemError)
    /// The object was refused; the text says why, for example because the kernel rejects its signature.
    case refused(String)
}

/// The reason why a file's object is not served.
enum ObjectFault: Error, CustomStringConvertible {
    case missing(ObjectID)
    case damaged(ObjectID, String)
    case system(ObjectID, SystemError)
    case refused(ObjectID, String)
    /// The client has stopped waiting.
    case interrupted

    /// The error number for the client: for a missing object the same as from overlayfs.
    var errno: Errno {
        switch self {
        case .missing: .noEntry
        case .interrupted: .interrupted
        case .damaged, .refused: .inputOutput
        case .system(_, let error):
            switch error.errno {
            case .tooManyOpenFiles, .outOfMemory, .accessDenied: error.errno
            default: .inputOutput
            }
        }
    }

    var description: String {
        switch self {
        case .missing(let id): "object \(id) is missing: pull the image again"
        case .damaged(let id, let what): "object \(id) is damaged: \(what)"
        case .system(let id, let error): "object \(id): \(error)"
        case .refused(let id, let why): "object \(id) cannot be opened: \(why)"
        case .interrupted: "interrupted"
        }
    }
}

/// Identifies the content of a file that was verified, so that it is hashed only once.
struct FileIdentity: Hashable, Sendable {
    var device: UInt64
    var inode: UInt64
    var size: UInt64
    var changedSeconds: Int64
    var changedNanoseconds: UInt32

    init(_ status: FileStatus) {
        device = status.device
        inode = status.inode
        size = status.size
        changedSeconds = status.ctimeSeconds
        changedNanoseconds = status.ctimeNanoseconds
    }

    /// Whether any later change must show in the change time. File systems have coarse clocks, and some store only whole seconds, or only
    /// even ones.
    func isSettled(at now: (seconds: Int64, nanoseconds: UInt32)) -> Bool {
        let elapsed = now.seconds &- changedSeconds
        if elapsed < 0 || elapsed > 2 { return elapsed > 2 }
        let step: Int64 = changedNanoseconds == 0 ? 2_000_000_000 : 0
        return elapsed * 1_000_000_000 + Int64(now.nanoseconds) - Int64(changedNanoseconds) > step + 100_000_000
    }
}

/// How a file's content was verified.
enum Verification: Sendable {
    /// The kernel checks every block that is read.
    case byKernel
    /// The content was hashed. The result is valid while the file's identity stays the same.
    case byHash(FileIdentity, isSettled: Bool)

    var identity: FileIdentity? {
        if case .byHash(let identity, _) = self { identity } else { nil }
    }
}

/// A request that waits until an object is verified.
struct Waiting: Sendable {
    var unique: UInt64
    /// The client's thread.
    var pid: UInt32

    /// Whether the client is being killed: SIGKILL is pending, into which the kernel turns every fatal signal.
    var isKilled: Bool {
        guard pid != 0, let file = try? FileDescriptor.open(ByteString("/proc/\(pid)/status"), .readOnly),
            let status = try? file.readAll(limit: 1 << 16)
        else { return pid != 0 }
        for line in status.split(separator: UInt8(ascii: "\n")) {
            guard line.starts(with: "SigPnd:".utf8) || line.starts(with: "ShdPnd:".utf8) else { continue }
            let digits = String(decoding: line.dropFirst(7).drop { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }, as: UTF8.self)
            if let pending = UInt64(digits, radix: 16), pending & 1 << 8 != 0 { return true }
        }
        return false
    }
}

/// Compares files with the fs-verity digests that they must have. Each content is hashed once per process, by one thread, while other
/// threads that need it wait.
final class ObjectVerifier: Sendable {
    private struct Known {
        var id: ObjectID
        var identity: FileIdentity
    }

    private struct State {
        /// By inode number. All objects are on one file system, and the rest of the identity is compared.
        var known: [UInt64: Known] = [:]
        /// Objects that are being hashed.
        var busy: Set<ObjectID> = []
        /// Requests that wait for a hash, and those of them whose clients received a signal.
        var waiting: Set<UInt64> = []
        var interrupted: Set<UInt64> = []
    }

    private let requireVerity: Bool
    private let monitor = Guarded(State())
    /// All objects are on one file system. If it lacks fs-verity for one object, no other object is asked.
    private let isWithoutVerity = Atomic<Bool>(false)

    init(requireVerity: Bool) { self.requireVerity = requireVerity }

    /// Throws unless the file's content has the digest.
    ///
    /// - Parameters:
    ///   - size: The size in the image, in bytes.
    ///   - request: The wait ends if its client is killed.
    ///   - buffer: Working memory of at least 4 KiB.
    func verify(
        _ file: borrowing FileDescriptor, _ id: ObjectID, size: UInt64, request: Waiting, buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> Verification {
        let status = try system(id) { () throws(SystemError) in try file.status() }
        guard status.kind == .regular else { throw .damaged(id, "it is not a regular file") }
        guard status.size == size else { throw .damaged(id, "it has \(status.size) bytes, but the image says \(size)") }
        if try isMeasured(file, id) { return .byKernel }
        let identity = FileIdentity(status)
        switch begin(id, identity, request) {
        case .known: return .byHash(identity, isSettled: true)
        case .interrupted: throw .interrupted
        case .mustHash: break
        }
        let result: Result<Verification, ObjectFault>
        do throws(ObjectFault) {
            result = .success(try hash(file, id, identity, request, buffer))
        } catch {
            result = .failure(error)
        }
        monitor.change { state in
            state.busy.remove(id)
            state.waiting.remove(request.unique)
            state.interrupted.remove(request.unique)
            if case .success(.byHash(let identity, isSettled: true)) = result {
                state.known[identity.inode] = Known(id: id, identity: identity)
            }
        }
        return try result.get()
    }

    /// Records that the client of this request received a signal. A signal with a handler must not end the wait, because few programs
    /// expect EINTR from a file. A fatal signal must end it; the status of the client shows which one it is.
    func interrupt(_ request: UInt64) {
        monitor.change { state in
            if state.waiting.contains(request) { state.interrupted.insert(request) }
        }
    }

    /// Whether the kernel checks the content. Throws if the kernel reports another digest, or must check the content and does not.
    private func isMeasured(_ file: borrowing FileDescriptor, _ id: ObjectID) throws(ObjectFault) -> Bool {
        var measured: (algorithm: UInt8, digest: [UInt8])?
        if !isWithoutVerity.load(ordering: .relaxed) {
            do throws(SystemError) {
                measured = try file.measureVerity()
            } catch {
                guard error.isUnsupported else { throw .system(id, error) }
                isWithoutVerity.store(true, ordering: .relaxed)
            }
        }
        guard let measured else {
            if requireVerity { throw .damaged(id, "it has no fs-verity, but its repository requires it") }
            return false
        }
        guard let algorithm = VerityAlgorithm(rawValue: measured.algorithm),
            let actual = ObjectID(algorithm: algorithm, bytes: measured.digest)
        else { throw .damaged(id, "its fs-verity digest has an unknown algorithm") }
        if actual == id { return true }
        // A digest of another algorithm than the repository's does not verify the content.
        if actual.algorithm != id.algorithm, !requireVerity { return false }
        throw .damaged(id, "its content has the digest \(actual)")
    }

    private enum Start { case known, mustHash, interrupted }

    private func begin(_ id: ObjectID, _ identity: FileIdentity, _ request: Waiting) -> Start {
        monitor.wait { (state, _) -> Start? in
            if state.interrupted.contains(request.unique), request.isKilled {
                state.waiting.remove(request.unique)
                state.interrupted.remove(request.unique)
                return .interrupted
            }
            if let known = state.known[identity.inode], known.identity == identity, known.id == id {
                state.waiting.remove(request.unique)
                state.interrupted.remove(request.unique)
                return .known
            }
            state.waiting.insert(request.unique)
            return state.busy.insert(id).inserted ? .mustHash : nil
        }
    }

    private func hash(
        _ file: borrowing FileDescriptor, _ id: ObjectID, _ identity: FileIdentity, _ request: Waiting,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> Verification {
        let start = Host.currentTime()
        var hasher = VerityHasher(id.algorithm)
        var parts = FileParts(into: buffer)
        while true {
            // Wakes the threads that wait for this hash too, so that they check whether they are still needed.
            if monitor.change({ $0.interrupted.contains(request.unique) }), request.isKilled { throw .interrupted }
            guard let part = try system(id, { () throws(SystemError) in try parts.next(of: file) }) else { break }
            hasher.update(part)
        }
        let actual = hasher.finalize()
        guard actual == id else { throw .damaged(id, "its content has the digest \(actual)") }
        let after = FileIdentity(try system(id) { () throws(SystemError) in try file.status() })
        guard after == identity else { throw .damaged(id, "it changed while it was being read") }
        return .byHash(identity, isSettled: identity.isSettled(at: start))
    }
}

func system<Result: ~Copyable>(_ id: ObjectID, _ body: () throws(SystemError) -> Result) throws(ObjectFault) -> Result {
    do throws(SystemError) {
        return try body()
    } catch {
        if error.errno == .noEntry { throw .missing(id) }
        throw .system(id, error)
    }
}
