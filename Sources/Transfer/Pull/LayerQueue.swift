import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports
import Synchronization

/// The layers that a pull has not started yet. Each thread takes the first layer that no other pull, in this or another process, is
/// fetching. If other pulls are fetching all remaining layers, the thread waits for one of them.
///
/// Pulls that need the same layers cannot deadlock, in whatever order they take them. A thread that holds a lease imports that layer and
/// requests no other lease before it has released this one, so a thread with a lease never waits for a lease. Everything else that it needs
/// (reader threads, object pool, source) belongs to its own pull. The kernel releases the leases of a process that ends.
final class LayerQueue: Sendable {
    private struct State {
        var pending: [LayerTask]
        var announced: Set<Int> = []
        var failure: (any Error)?
    }

    private enum Choice {
        case layer(LayerTask, BlobLease?)
        /// Other pulls are fetching all remaining layers.
        case busy(LayerTask)
        case end
    }

    private let isRemote: Bool
    private let cancellation: Cancellation
    private let repository: Repository
    private let reporter: PullReporter
    private let count: Int
    private let state: Mutex<State>

    /// - Parameter count: the number of the image's layers, for messages.
    init(
        _ order: [LayerTask], isRemote: Bool, repository: Repository, reporter: PullReporter, count: Int, _ cancellation: Cancellation
    ) {
        self.isRemote = isRemote
        self.cancellation = cancellation
        self.repository = repository
        self.reporter = reporter
        self.count = count
        state = Mutex(State(pending: order))
    }

    /// The first error, after which the pull cannot succeed; nil if there was none.
    var failure: (any Error)? { state.withLock { $0.failure } }

    /// Records the failure of a layer. No further layer is started; layers in progress are completed, for the next pull.
    func fail(_ task: LayerTask, _ cause: any Error) {
        let failure = PullError.layer(number: task.index + 1, of: count, task.descriptor.digest, cause: cause)
        state.withLock { $0.failure = $0.failure ?? failure }
    }

    /// Returns the next layer, with the lease on its blob if the source is remote. Waits while other pulls are fetching all remaining
    /// layers. Nil if no layer remains, and after a failure.
    func next() -> (LayerTask, BlobLease?)? {
        var blocked: LayerTask?
        do {
            return try pollingForLease(cancellation) { () -> (LayerTask, BlobLease?)?? in
                switch choose() {
                case .layer(let task, let lease): return .some((task, lease))
                case .end: return .some(nil)
                case .busy(let task):
                    blocked = task
                    return nil
                }
            }
        } catch {
            if let blocked { fail(blocked, error) }
            return nil
        }
    }

    private func choose() -> Choice {
        let (choice, waiting) = state.withLock { state -> (Choice, [Int]) in
            guard state.failure == nil, let first = state.pending.first else { return (.end, []) }
            guard isRemote else { return (.layer(state.pending.removeFirst(), nil), []) }
            for (position, task) in state.pending.enumerated() {
                do {
                    if let lease = try repository.leaseBlob(ByteString(task.descriptor.digest.description), size: task.descriptor.size) {
                        state.pending.remove(at: position)
                        return (.layer(task, lease), [])
                    }
                } catch {
                    state.failure = PullError.layer(number: task.index + 1, of: count, task.descriptor.digest, cause: error)
                    return (.end, [])
                }
            }
            let waiting = state.pending.map(\.index).filter { state.announced.insert($0).inserted }
            return (.busy(first), waiting)
        }
        for index in waiting { reporter.layer(index, .waiting) }
        return choice
    }
}
