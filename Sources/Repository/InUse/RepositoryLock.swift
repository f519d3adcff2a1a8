internal import ComposefsBytes
package import ComposefsConcurrency
internal import ComposefsLinuxSystem
internal import Synchronization

/// How long to wait for other handles of a repository.
public enum LockWait: Hashable, Sendable {
    case forever
    /// At most this long, and then `RepositoryError.busy`. Zero does not wait.
    case upTo(Duration)
}

extension Repository {
    /// The interval between attempts. The kernel's own wait for a lock has no time limit.
    private static let lockInterval = Duration.milliseconds(25)

    /// Takes a lock on the repository's directory, and waits for other handles.
    ///
    /// - Parameter willWait: called once before waiting.
    /// - Throws: `.busy` after the time limit, `.cancelled`.
    static func lock(
        _ root: borrowing RootedDirectory, _ path: ByteString, _ kind: LockKind, _ wait: LockWait, _ cancellation: Cancellation,
        _ willWait: (@Sendable () -> Void)?
    ) throws(RepositoryError) {
        if try system({ () throws(SystemError) in try root.lock(kind, wait: false) }) { return }
        guard wait != .upTo(.zero) else { throw .busy(path, holders: Host.lockHolders(of: root.descriptor)) }
        willWait?()
        let begin = MonotonicTime.now
        while true {
            guard cancellation.sleep(lockInterval) else { throw .cancelled }
            if try system({ () throws(SystemError) in try root.lock(kind, wait: false) }) { return }
            if case .upTo(let limit) = wait, MonotonicTime.now - begin >= limit {
                throw .busy(path, holders: Host.lockHolders(of: root.descriptor))
            }
        }
    }

    /// Waits until no other handle of the repository is open, in this process or another, and then allows others again. An operation that
    /// ends with `collectGarbage` calls this first, so that it does not begin if it could not finish.
    ///
    /// - Throws: `.busy` after the time limit, `.cancelled`.
    package func waitForOthers(
        _ wait: LockWait, _ cancellation: Cancellation = Cancellation(), willWait: (@Sendable () -> Void)? = nil
    ) throws(RepositoryError) {
        try activity.marker.withLock { (_) throws(RepositoryError) in
            guard activity.storing.load(ordering: .sequentiallyConsistent) == 0 else { return }
            try lockAlone(wait, cancellation, willWait)
            try backToShared()
        }
    }

    /// Replaces the shared lock by the exclusive one. The attempt releases the shared lock, so this handle must have no operation under way. After a
    /// failure the handle has the shared lock again.
    func lockAlone(_ wait: LockWait, _ cancellation: Cancellation, _ willWait: (@Sendable () -> Void)?) throws(RepositoryError) {
        do throws(RepositoryError) {
            try Self.lock(root, path, .exclusive, wait, cancellation, willWait ?? options.willWait)
        } catch {
            try backToShared()
            throw error
        }
    }
}
