internal import ComposefsBytes
package import ComposefsConcurrency
internal import ComposefsLinuxSystem
internal import Synchronization

/// How long to wait for others that have a repository open.
public enum LockWait: Hashable, Sendable {
    case forever
    /// Then `RepositoryError.busy`. Zero does not wait.
    case upTo(Duration)
}

extension Repository {
    /// How often the lock is tried. The kernel's own waiting knows no time limit.
    private static let lockInterval = Duration.milliseconds(25)

    /// Takes a lock on the repository's directory, waiting for others.
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

    /// Waits until no other handle of the repository is open, here or in another process, and lets others in again: for what would rather not
    /// begin when `collectGarbage` could not follow.
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

    /// Takes the exclusive lock in the place of the shared one. The attempt gives up the shared lock: nothing of this handle's may be in flight. When it
    /// fails, the shared lock is back.
    func lockAlone(_ wait: LockWait, _ cancellation: Cancellation, _ willWait: (@Sendable () -> Void)?) throws(RepositoryError) {
        do throws(RepositoryError) {
            try Self.lock(root, path, .exclusive, wait, cancellation, willWait ?? options.willWait)
        } catch {
            try backToShared()
            throw error
        }
    }
}
