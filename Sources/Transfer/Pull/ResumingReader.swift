import ComposefsLinuxSystem
package import ComposefsOCIModel
package import ComposefsRepository
package import ComposefsTransports

/// A blob from what an earlier pull has kept of it, and then from its source, which is asked for the rest only. That is kept in turn,
/// before anybody else sees it: who is killed has lost what was not read yet, nothing else.
final class ResumingReader: BlobReader {
    private let source: any ImageSource
    private let descriptor: Descriptor
    private let claim: BlobClaim
    private let observer: BlobObserver
    private var position: UInt64 = 0
    private var rest: (any BlobReader)?
    private var isKeeping = true

    /// Bytes that were kept.
    private(set) var resumedFrom: UInt64
    /// Whether reading itself ended with an error; otherwise one is due to the content.
    private(set) var hasFailed = false

    init(_ source: any ImageSource, _ descriptor: Descriptor, _ claim: BlobClaim, observer: @escaping BlobObserver) {
        self.source = source
        self.descriptor = descriptor
        self.claim = claim
        self.observer = observer
        resumedFrom = claim.length
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        do {
            return try position < resumedFrom && isKeeping ? readKept(buffer) : readRest(buffer)
        } catch {
            hasFailed = true
            throw error
        }
    }

    func reject(_ reason: String) -> Bool { rest?.reject(reason) ?? false }

    private func readKept(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        try source.checkCancellation()
        let count = (try? claim.read(into: buffer, at: position)) ?? 0
        if count == 0 {
            // The disk lost it. What has been read is good for this pull, but there is nothing to append to any more.
            isKeeping = false
            claim.clear()
            return try readRest(buffer)
        }
        position += UInt64(count)
        return count
    }

    private func readRest(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if rest == nil {
            if position > 0 { observer(.resumed(from: position)) }
            // All of it was there. An empty blob was never asked for.
            if position == descriptor.size, position > 0 { return 0 }
        }
        let rest = try self.rest ?? source.openBlob(descriptor, from: position, observer)
        self.rest = rest
        let count = try rest.read(into: buffer)
        if isKeeping { claim.append(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
        position += UInt64(count)
        return count
    }
}

extension BlobClaim {
    /// Runs `body` with the blob, beginning with what is kept of it. Where its content is refused then, what was kept may be at fault: it is
    /// dropped, and the whole blob is fetched anew, once. After that whoever sent it may be: it is fetched from the next who may have it.
    package func read<Result>(
        _ descriptor: Descriptor, from source: any ImageSource, observer: @escaping BlobObserver,
        _ body: (any BlobReader) throws -> Result
    ) throws -> Result {
        var isFirst = true
        while true {
            let reader = ResumingReader(source, descriptor, self, observer: observer)
            do {
                return try body(reader)
            } catch {
                // What could not be read or stored says nothing of what has come so far.
                if reader.hasFailed || error is RepositoryError || error is SystemError { throw error }
                if isFirst, reader.resumedFrom > 0 {
                    isFirst = false
                } else if !Self.isOfTheImage(error), reader.reject("\(error)") {
                    // Nothing of it is good for anything: it begins again elsewhere.
                } else {
                    // A limit that an honest beginning exceeds may be raised the next time.
                    if !(error is LimitExceeded) || reader.resumedFrom > 0 { clear() }
                    throw error
                }
                clear()
            }
        }
    }

    /// Whether the error comes of the right bytes, so that nobody has better ones.
    private static func isOfTheImage(_ error: any Error) -> Bool {
        if case PullError.diffID = error { true } else { false }
    }
}
