import ComposefsOCIModel
import ComposefsTransports
import Synchronization

/// A pull's off switch, pulled by the task that waits for it, felt by the threads that work for it.
final class Interruption: Sendable {
    private struct State {
        var isSet = false
        var action: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    var isSet: Bool { state.withLock { $0.isSet } }

    func set() {
        let action = state.withLock { state in
            state.isSet = true
            return state.action
        }
        action?()
    }

    /// What ends the waits that no check comes between.
    func whenSet(_ action: @escaping @Sendable () -> Void) {
        let isSet = state.withLock { state in
            state.action = action
            return state.isSet
        }
        if isSet { action() }
    }

    func check() throws(CancellationError) {
        if isSet { throw CancellationError() }
    }
}

/// A source that gives nothing more once it is interrupted.
struct InterruptibleSource: ImageSource {
    let source: any ImageSource
    let interruption: Interruption

    var canonicalName: String { source.canonicalName }

    func rootManifest() throws -> SourceManifest {
        try interruption.check()
        return try source.rootManifest()
    }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        try interruption.check()
        return try source.manifest(descriptor)
    }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        try interruption.check()
        return Reader(blob: try source.openBlob(descriptor), interruption: interruption)
    }

    func openBlob(_ descriptor: Descriptor, from offset: UInt64, _ observer: BlobObserver?) throws -> any BlobReader {
        try interruption.check()
        return Reader(blob: try source.openBlob(descriptor, from: offset, observer), interruption: interruption)
    }

    func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] {
        try interruption.check()
        return try source.referrers(of: digest, artifactType: artifactType)
    }

    var isRemote: Bool { source.isRemote }
    var localNames: [String] { source.localNames }
    var pinnedDigest: ContentDigest? { source.pinnedDigest }

    func checkCancellation() throws {
        try interruption.check()
        try source.checkCancellation()
    }

    private final class Reader: BlobReader {
        let blob: any BlobReader
        let interruption: Interruption

        init(blob: any BlobReader, interruption: Interruption) {
            self.blob = blob
            self.interruption = interruption
        }

        func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
            try interruption.check()
            return try blob.read(into: buffer)
        }

        func reject(_ reason: String) -> Bool { blob.reject(reason) }
    }
}
