internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsEROFS
public import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// Who has the objects that an image's files are read from.
public protocol ObjectOpener: Sendable {
    /// Opens an object for reading, without looking at its content; `.noEntry` where there is none.
    func openObject(_ id: ObjectID) throws(ObjectOpenError) -> FileDescriptor
}

/// Why an object cannot be opened.
public enum ObjectOpenError: Error, Sendable, Hashable {
    case system(SystemError)
    /// For a reason that takes words: the kernel does not take its signature, for example.
    case refused(String)
}

/// Why a file's object is not served.
enum ObjectFault: Error, CustomStringConvertible {
    case missing(ObjectID)
    case damaged(ObjectID, String)
    case system(ObjectID, SystemError)
    case refused(ObjectID, String)
    /// The client does not wait any more.
    case interrupted

    /// What the client gets: for an object that is not there the same as from overlayfs.
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

/// Which file content was found good, so that it is hashed once.
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

    /// Whether a change from now on must show in the time of the last change: clocks of file systems tick slowly, and some keep whole
    /// seconds only, or every second one.
    func isSettled(at now: (seconds: Int64, nanoseconds: UInt32)) -> Bool {
        let elapsed = now.seconds &- changedSeconds
        if elapsed < 0 || elapsed > 2 { return elapsed > 2 }
        let step: Int64 = changedNanoseconds == 0 ? 2_000_000_000 : 0
        return elapsed * 1_000_000_000 + Int64(now.nanoseconds) - Int64(changedNanoseconds) > step + 100_000_000
    }
}

/// What a file's content was found to be.
enum Verification: Sendable {
    /// The kernel checks every block that is read.
    case byKernel
    /// Hashed; good as long as the file's identity stays the same.
    case byHash(FileIdentity, isSettled: Bool)

    var identity: FileIdentity? {
        if case .byHash(let identity, _) = self { identity } else { nil }
    }
}

/// A request that waits for an object to be verified.
struct Waiting: Sendable {
    var unique: UInt64
    /// The thread of the client.
    var pid: UInt32

    /// Whether the client waits only for its own end: SIGKILL is pending, which the kernel makes of every signal that ends a process.
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

/// Compares files with the fs-verity digests that they must have. A content is hashed once a process, by one thread while others that need
/// the same wait.
final class ObjectVerifier: Sendable {
    private struct Known {
        var id: ObjectID
        var identity: FileIdentity
    }

    private struct State {
        /// By inode number: all objects lie on one file system, and the rest of the identity is compared.
        var known: [UInt64: Known] = [:]
        /// Being hashed right now.
        var busy: Set<ObjectID> = []
        /// Requests that wait for a hash, and those of them whose clients got a signal.
        var waiting: Set<UInt64> = []
        var interrupted: Set<UInt64> = []
    }

    private let requireVerity: Bool
    private let monitor = Guarded(State())
    /// All objects lie on one file system: what it cannot do for one it is not asked for another.
    private let isWithoutVerity = Atomic<Bool>(false)

    init(requireVerity: Bool) { self.requireVerity = requireVerity }

    /// Throws unless the file's content has the digest.
    ///
    /// - Parameters:
    ///   - size: what the image says, in bytes.
    ///   - request: given up when its client is killed.
    ///   - buffer: working space, at least 4 KiB.
    func verify(
        _ file: borrowing FileDescriptor, _ id: ObjectID, size: UInt64, request: Waiting, buffer: UnsafeMutableRawBufferPointer
    ) throws(ObjectFault) -> Verification {
        let status = try system(id) { () throws(SystemError) in try file.status() }
        guard status.kind == .regular else { throw .damaged(id, "it is no regular file") }
        guard status.size == size else { throw .damaged(id, "it has \(status.size) bytes, the image says \(size)") }
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

    /// A signal came to this request's client. One that it has a handler for must not end the wait, since few programs expect EINTR of a
    /// file; one that kills it should, and that shows in its status.
    func interrupt(_ request: UInt64) {
        monitor.change { state in
            if state.waiting.contains(request) { state.interrupted.insert(request) }
        }
    }

    /// Whether the kernel vouches for the content; throws where it says that it is another one, or must vouch and does not.
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
            if requireVerity { throw .damaged(id, "it has no fs-verity, which its repository promises") }
            return false
        }
        guard let algorithm = VerityAlgorithm(rawValue: measured.algorithm),
            let actual = ObjectID(algorithm: algorithm, bytes: measured.digest)
        else { throw .damaged(id, "its fs-verity digest is of an unknown algorithm") }
        if actual == id { return true }
        // Another algorithm than the repository's tells nothing about the content.
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
        var offset: UInt64 = 0
        while true {
            // Wakes those who wait for this hash too, so that they look whether they are needed.
            if monitor.change({ $0.interrupted.contains(request.unique) }), request.isKilled { throw .interrupted }
            let count = try system(id) { () throws(SystemError) in try file.pread(into: buffer, at: offset) }
            guard count > 0 else { break }
            hasher.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += UInt64(count)
        }
        let actual = hasher.finalize()
        guard actual == id else { throw .damaged(id, "its content has the digest \(actual)") }
        let after = FileIdentity(try system(id) { () throws(SystemError) in try file.status() })
        guard after == identity else { throw .damaged(id, "it changed while it was read") }
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
