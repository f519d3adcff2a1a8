import ComposefsBytes
import ComposefsConcurrency
import ComposefsRepository

/// Writes the objects of layers to the device while others arrive and the merged image is made: the sync before the publication has little left to
/// wait for.
final class EarlySync: Sendable {
    private let repository: Repository
    private let state = Guarded(State())

    private struct State {
        var unsynced: UInt64 = 0
        var isRunning = false
        var failure: RepositoryError?
        /// Nil before the first sync.
        var pool: WorkerPool?

        /// Whether a sync is worth its transaction.
        mutating func begin() -> Bool {
            isRunning = unsynced >= EarlySync.leastBytes && failure == nil
            if isRunning { unsynced = 0 }
            return isRunning
        }
    }

    /// In bytes. Less than that costs nothing to write at the end, and a second transaction of the file system would.
    private static let leastBytes: UInt64 = 8 << 20

    init(_ repository: Repository) { self.repository = repository }

    /// Call it when `bytes` more were stored.
    func stored(_ bytes: UInt64) {
        let pool = state.change { state -> WorkerPool? in
            state.unsynced = state.unsynced.saturatingAdd(bytes)
            guard !state.isRunning, state.begin() else { return nil }
            let pool = state.pool ?? WorkerPool(threads: 1)
            state.pool = pool
            return pool
        }
        pool?.submit { [state, repository] in Self.sync(repository, state) }
    }

    private static func sync(_ repository: Repository, _ state: Guarded<State>) {
        var goesOn = true
        while goesOn {
            var failure: RepositoryError?
            do throws(RepositoryError) { try repository.syncData() } catch { failure = error }
            goesOn = state.change { state in
                state.failure = failure
                return state.begin()
            }
        }
    }

    /// Waits for the end.
    ///
    /// - Throws: `RepositoryError` if the device has lost something: a later sync may not report it again.
    func finish() throws(RepositoryError) {
        end()
        if let failure = state.read({ $0.failure }) { throw failure }
    }

    /// Ends the thread, if `finish` has not. A failure is recorded by the repository.
    func end() { state.read { $0.pool }?.shutdown() }
}
