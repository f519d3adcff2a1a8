import ComposefsConcurrency
import ComposefsRepository

/// Writes the objects of layers to the device while the merged image is made: the sync before the publication has little left to wait for.
final class EarlySync: Sendable {
    private let pool = WorkerPool(threads: 1)
    private let failure = Guarded<RepositoryError?>(nil)

    /// In bytes. Less than that costs nothing to write at the end, and a second transaction of the file system would.
    private static let leastBytes: UInt64 = 8 << 20

    /// Starts, unless only `bytes` were stored and that is too little. What is stored later may be written, too, or not.
    init?(_ repository: Repository, stored bytes: UInt64) {
        guard bytes >= Self.leastBytes else { return nil }
        pool.submit { [failure] in
            do throws(RepositoryError) { try repository.syncData() } catch { failure.change { $0 = error } }
        }
    }

    /// Waits for the end.
    ///
    /// - Throws: `RepositoryError` if the device has lost something: a later sync may not report it again.
    func finish() throws(RepositoryError) {
        pool.shutdown()
        if let failure = failure.read({ $0 }) { throw failure }
    }

    /// Ends the thread, if `finish` has not. A failure is recorded by the repository.
    func end() { pool.shutdown() }
}
