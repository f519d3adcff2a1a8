import ComposefsBytes
import ComposefsDisks
import ComposefsOCIModel
import Synchronization

/// Creates a pull's events: adds the component and the numbers of bytes, and passes them to the observer.
final class PullReporter: Sendable {
    private struct Layers {
        var descriptors: [Descriptor] = []
        var done: [UInt64] = []
    }

    private let observer: PullObserver?
    private let layers = Mutex(Layers())

    init(_ observer: PullObserver?) { self.observer = observer }

    /// Reports that the image is resolved. Events of layers may follow.
    func resolved(_ resolution: PullEvent.Resolution) {
        layers.withLock { $0 = Layers(descriptors: resolution.layers, done: Array(repeating: 0, count: resolution.layers.count)) }
        image(.resolved(resolution))
    }

    /// Reports a phase of the image.
    func image(_ phase: PullEvent.Phase) {
        guard let observer else { return }
        let (done, total) = layers.withLock { layers in
            (layers.done.saturatingSum, layers.descriptors.map(\.size).saturatingSum)
        }
        observer(PullEvent(.image, phase, bytesDone: done, bytesTotal: total))
    }

    /// Reports a step in the making of a disk.
    func disk(_ kind: DiskKind, _ step: DiskStep) {
        switch step {
        case .layer(let index, let byteCount): layer(index, .materializing(kind, byteCount: byteCount))
        case .layerWritten(let index): layer(index, .materialized(kind))
        case .joining: image(.stitching(kind))
        }
    }

    /// Reports a phase of a layer.
    ///
    /// - Parameter done: the bytes of the blob that have arrived, if the number changes. Skipped and verified layers count as a whole, and
    ///   resumed ones up to their offset.
    func layer(_ index: Int, _ phase: PullEvent.Phase, done: UInt64? = nil) {
        guard let observer else { return }
        let found = layers.withLock { layers -> (descriptor: Descriptor, done: UInt64)? in
            guard layers.descriptors.indices.contains(index) else { return nil }
            let descriptor = layers.descriptors[index]
            switch phase {
            case .skipped, .verified, .stored: layers.done[index] = descriptor.size
            case .resumed(let offset): layers.done[index] = offset
            default: if let done { layers.done[index] = done }
            }
            return (descriptor, layers.done[index])
        }
        guard let found else { return }
        observer(
            PullEvent(
                .layer(index: index, digest: found.descriptor.digest), phase, bytesDone: found.done, bytesTotal: found.descriptor.size))
    }
}
