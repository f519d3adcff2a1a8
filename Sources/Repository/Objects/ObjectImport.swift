internal import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

/// Imports objects from another repository and verifies them: content gets an object's name only if it has that digest.
///
/// Content is shared if the file system can (FICLONE). Otherwise the file gets a further name, or is copied. Only a file that no other user
/// can change gets a further name: one with fs-verity, or one of our own. The other repository must have the same algorithm and stay open.
public final class ObjectImporter: Sendable {
    /// How many objects were imported, and in which way.
    public struct Counts: Sendable, Hashable {
        /// The repository had them already.
        public var present = 0
        /// They share their content with the source's.
        public var cloned = 0
        /// They are further names of the source's files.
        public var linked = 0
        public var copied = 0
        /// How many bytes were written.
        public var copiedBytes: UInt64 = 0

        public init() {}

        public static func += (left: inout Counts, right: Counts) {
            left.present += right.present
            left.cloned += right.cloned
            left.linked += right.linked
            left.copied += right.copied
            left.copiedBytes += right.copiedBytes
        }
    }

    private let source: Repository
    private let target: Repository
    private let cannotClone = Atomic<Bool>(false)
    private let cannotLink = Atomic<Bool>(false)

    public init(from source: Repository, to target: Repository) throws(RepositoryError) {
        guard source.algorithm == target.algorithm else {
            throw .algorithmMismatch(found: source.algorithm, expected: target.algorithm)
        }
        self.source = source
        self.target = target
    }

    /// Imports objects on several threads. They are durable after the repository's next `publish` or `sync`.
    ///
    /// - Throws: the first failure; `RepositoryError.source` names a damaged object of the source.
    public func run(
        _ ids: [ObjectID], threads: Int, _ cancellation: Cancellation = Cancellation(),
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> Counts {
        try target.beginPull()
        let flag = FailureFlag()
        let results = parallelMap(ids, threads: threads, progress: progress) { [self] id -> Result<Counts, RepositoryError> in
            guard !flag.isSet.load(ordering: .relaxed), !cancellation.isCancelled else { return .success(Counts()) }
            do throws(RepositoryError) {
                return .success(try bring(id))
            } catch {
                flag.isSet.store(true, ordering: .relaxed)
                return .failure(error)
            }
        }
        var counts = Counts()
        for result in results { counts += try result.get() }
        try cancellation.check()
        return counts
    }

    private final class FailureFlag: Sendable {
        let isSet = Atomic<Bool>(false)
    }

    private func bring(_ id: ObjectID) throws(RepositoryError) -> Counts {
        try target.beginStoring()
        defer { target.endStoring() }
        let path = Layout.objectPath(id)
        let file = try source.openForReading(id, at: path)
        let status = try system { () throws(SystemError) in try file.status() }
        var counts = Counts()
        let found = try target.inspect(id, size: status.size, at: path)
        if found == .good {
            counts.present = 1
            return counts
        }
        if try clone(file, id, status, path, found) {
            counts.cloned = 1
        } else if found == .absent, try link(file, id, status, path) {
            counts.linked = 1
        } else {
            try copy(file, id, path, found)
            counts.copied = 1
            counts.copiedBytes = status.size
        }
        return counts
    }

    private func damaged(_ path: ByteString, _ actual: ObjectID?) -> RepositoryError {
        .source(source.path + "/" + path, .damaged(actual: actual))
    }

    private func clone(
        _ file: borrowing FileDescriptor, _ id: ObjectID, _ status: FileStatus, _ path: ByteString, _ found: Repository.Presence
    ) throws(RepositoryError) -> Bool {
        guard !cannotClone.load(ordering: .relaxed), status.size > 0 else { return false }
        var temporary = try target.makeTemporary(mode: 0o644)
        do throws(SystemError) {
            try temporary.file.cloneContent(from: file)
        } catch {
            switch error.errno {
            case .notSupported, .crossDevice, .invalidArgument, .notTerminal, .noSystemCall, .notPermitted:
                cannotClone.store(true, ordering: .relaxed)
                return false
            default: throw .system(error)
            }
        }
        // Hashes the clone and not the source: no other process can change the clone any more.
        let actual = try system { () throws(SystemError) in try hash(temporary.file, id.algorithm) }
        guard actual == id else { throw damaged(path, actual) }
        _ = try target.commit(&temporary, id, size: status.size, at: path, found: found)
        return true
    }

    private func link(
        _ file: borrowing FileDescriptor, _ id: ObjectID, _ status: FileStatus, _ path: ByteString
    ) throws(RepositoryError) -> Bool {
        guard !cannotLink.load(ordering: .relaxed), !target.wantsSignature(id) else { return false }
        let measured = try system { () throws(SystemError) in try measuredVerity(file) }
        if let measured {
            guard measured == id else { throw damaged(path, measured) }
        } else {
            // A repository with fs-verity takes no file that can still be changed, and no repository takes one that another user can
            // change.
            guard !target.isSecure, status.uid == Host.effectiveUserID, status.mode & 0o022 == 0 else { return false }
            let actual = try system { () throws(SystemError) in try hash(file, id.algorithm) }
            guard actual == id else { throw damaged(path, actual) }
        }
        for _ in 0..<2 {
            do throws(SystemError) {
                try target.linkObject(file, id, at: path)
                target.activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
                return true
            } catch {
                switch error.errno {
                case .exists: return false
                case .noEntry: try target.makeDirectory(of: id)
                case .crossDevice, .notPermitted, .notSupported:
                    cannotLink.store(true, ordering: .relaxed)
                    return false
                // The file has the largest number of names already, or the file system allows none.
                default: return false
                }
            }
        }
        return false
    }

    private func copy(
        _ file: borrowing FileDescriptor, _ id: ObjectID, _ path: ByteString, _ found: Repository.Presence
    ) throws(RepositoryError) {
        var temporary = try target.makeTemporary(mode: 0o644)
        var hasher = VerityHasher(id.algorithm)
        let size = try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            var parts = FileParts(into: buffer)
            try system { () throws(SystemError) in
                while let part = try parts.next(of: file) {
                    hasher.update(part)
                    try temporary.file.writeAll(part)
                }
            }
            return parts.offset
        }
        let actual = hasher.finalize()
        guard actual == id else { throw damaged(path, actual) }
        _ = try target.commit(&temporary, id, size: size, at: path, found: found)
    }
}
