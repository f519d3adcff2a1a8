import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports
import Synchronization

/// The layers that no thread of a pull has begun yet. Each thread takes the first one that no other pull is fetching, here or in another
/// process; when there are only such, it waits for any of them.
///
/// There is no deadlock between pulls that want the same layers, in whatever order: a thread that holds a claim is importing that layer and
/// asks for no other claim until it has given it back, so whoever has a claim never waits for one. What it needs besides (its pull's
/// threads for reading and for objects, the source) no other pull has. And who dies loses all claims to the kernel.
final class LayerQueue: Sendable {
    private struct State {
        var pending: [LayerTask]
        var announced: Set<Int> = []
        var failure: (any Error)?
    }

    private enum Choice {
        case layer(LayerTask, BlobClaim?)
        /// Others are at all that are left.
        case busy(LayerTask)
        case end
    }

    private let isRemote: Bool
    private let cancellation: Cancellation
    private let repository: Repository
    private let reporter: PullReporter
    private let count: Int
    private let state: Mutex<State>

    /// - Parameter count: of the image's layers, for messages.
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

    /// Why the pull cannot succeed any more: the first reason of several.
    var failure: (any Error)? { state.withLock { $0.failure } }

    /// After a failure no new layer is begun; those that run come to their end, for the next pull.
    func fail(_ task: LayerTask, _ cause: any Error) {
        let failure = PullError.layer(number: task.index + 1, of: count, task.descriptor.digest, cause: cause)
        state.withLock { $0.failure = $0.failure ?? failure }
    }

    /// The next layer, with the claim on its blob where the source is remote. Waits while other pulls are at all that are left; nil when none
    /// is left, or after a failure.
    func next() -> (LayerTask, BlobClaim?)? {
        var blocked: LayerTask?
        do {
            return try pollingForClaim(cancellation) { () -> (LayerTask, BlobClaim?)?? in
                switch choose() {
                case .layer(let task, let claim): return .some((task, claim))
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
            for (place, task) in state.pending.enumerated() {
                do {
                    if let claim = try repository.claimBlob(ByteString(task.descriptor.digest.description), size: task.descriptor.size) {
                        state.pending.remove(at: place)
                        return (.layer(task, claim), [])
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
