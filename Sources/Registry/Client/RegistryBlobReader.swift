internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsTransports

/// A blob on its way. Broken connections are continued where they broke; the caller sees each byte once, and exactly as many as the descriptor
/// says or an error. The digest is the caller's to check.
final class RegistryBlobReader: BlobReader {
    /// A blob that grew by this many bytes has its tries back.
    private static let progressStep: UInt64 = 64 << 10

    private let client: RegistryClient
    private let repository: RemoteRepository
    private let digest: ContentDigest
    /// Of the whole blob, in bytes.
    private let size: UInt64
    private let observer: BlobObserver?
    /// Where the caller is, in bytes from the blob's beginning.
    private var offset: UInt64
    private var response: HTTPResponse?
    /// Where the current response ends, counted from the blob's beginning.
    private var responseEnd: UInt64 = 0
    /// Bytes of the current response that the caller has already.
    private var toSkip: UInt64 = 0
    private var tries: RetryState
    private var progressMark: UInt64
    private var pace: MinimumRate
    private var rangesAreRefused = false
    private var isComplete = false
    private var error: RegistryError?

    /// Waits for the registry's answer, not for the body. A caller that has all of the blob already is told its end without asking for anything.
    ///
    /// - Parameter offset: bytes that the caller has already.
    init(
        _ client: RegistryClient, _ repository: RemoteRepository, digest: ContentDigest, size: UInt64, from offset: UInt64 = 0,
        observer: BlobObserver? = nil
    ) throws(RegistryError) {
        self.client = client
        self.repository = repository
        self.digest = digest
        self.size = size
        self.observer = observer
        self.offset = min(offset, size)
        progressMark = self.offset
        tries = RetryState(for: repository)
        pace = MinimumRate(client.options)
        isComplete = size > 0 && self.offset == size
        while response == nil, !isComplete {
            do throws(Failure) {
                try connect()
            } catch {
                try pause(after: error)
            }
        }
    }

    private func pause(after failure: Failure) throws(RegistryError) {
        let (client, observer) = (client, observer)
        try client.pause(after: failure, &tries) { observer?(.retrying(reason: failure.error.description, delay: $0)) }
    }

    /// The current connection's version, for tests.
    var usesHTTP1: Bool? { response?.head.isHTTP1 }

    deinit { response?.cancel() }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if let error { throw error }
        guard !isComplete, !buffer.isEmpty else { return 0 }
        while true {
            do throws(Failure) {
                if let count = try advance(buffer) { return count }
            } catch {
                drop()
                do throws(RegistryError) {
                    try pause(after: error)
                } catch {
                    self.error = error
                    throw error
                }
            }
        }
    }

    /// Nil where something was done, but no byte came for the caller.
    private func advance(_ buffer: UnsafeMutableRawBufferPointer) throws(Failure) -> Int? {
        guard let response else {
            try connect()
            if offset > 0 { observer?(.resumed(from: offset)) }
            return nil
        }
        if toSkip > 0 {
            let count = try receive(response, into: .init(rebasing: buffer[..<min(buffer.count, Int(clamping: toSkip))]))
            guard count > 0 else { throw endedEarly(response) }
            toSkip -= UInt64(count)
            return nil
        }
        if offset == size {
            try expectEnd(response)
            return 0
        }
        if offset == responseEnd {
            drop()  // a part, as the server's Content-Range said; the next connection brings the next
            return nil
        }
        let count = try receive(response, into: .init(rebasing: buffer[..<min(buffer.count, Int(clamping: responseEnd - offset))]))
        guard count > 0 else { throw endedEarly(response) }
        offset += UInt64(count)
        if offset - progressMark >= Self.progressStep {
            progressMark = offset
            tries.madeProgress()
        }
        return count
    }

    private func receive(_ response: HTTPResponse, into buffer: UnsafeMutableRawBufferPointer) throws(Failure) -> Int {
        let count: Int
        do {
            count = try pace.measure { () throws(HTTPError) in try response.read(into: buffer) }
        } catch {
            throw Failure(error)
        }
        if let rate = pace.isTooLow() { throw client.session.tooSlow(rate, response.url) }
        return count
    }

    /// All bytes are there: more are an error, a connection that breaks now is none.
    private func expectEnd(_ response: HTTPResponse) throws(Failure) {
        var extra: UInt8 = 0
        let count = withUnsafeMutableBytes(of: &extra) { (try? response.read(into: $0)) ?? 0 }
        drop()
        guard count == 0 else { throw wrongSize("is longer than \(size) bytes", response.url) }
        isComplete = true
    }

    private func endedEarly(_ response: HTTPResponse) -> Failure {
        let have = response.head.status == 206 ? offset : (toSkip > 0 ? offset - toSkip : offset)
        guard response.head.endsWithConnection else { return wrongSize("ends after \(have) of \(size) bytes", response.url) }
        return Failure(
            RegistryError(.connection, "\(response.url.display): the connection ended after \(have) of \(size) bytes"),
            retry: .transient(after: nil))
    }

    private func wrongSize(_ how: String, _ url: HTTPURL) -> Failure {
        Failure(RegistryError(.sizeMismatch, "\(url.display): the blob \(how), where its descriptor says \(size)"))
    }

    private func drop() {
        response?.cancel()
        response = nil
    }

    private func connect() throws(Failure) {
        let usesRange = offset > 0 && offset < size && !rangesAreRefused
        let answer: HTTPResponse
        do throws(Failure) {
            // A paused HTTP/2 stream makes curl buffer up to 32 MiB of it, and all streams share one TCP window: blobs have connections of
            // their own, but for those that the ring takes whole, which are never paused.
            answer = try client.open(
                repository, "/v2/\(repository.name)/blobs/\(digest)", headers: usesRange ? ["Range: bytes=\(offset)-\(size - 1)"] : [],
                mayShareConnection: client.options.multiplexesBlobs || size - offset <= UInt64(HTTPResponse.sharedBodyLimit),
                what: "blob of \(repository.domain)/\(repository.name)")
        } catch {
            guard usesRange, error.error.status == 416 else { throw error }
            throw refusedRange(error.error.description)
        }
        do throws(Failure) {
            switch answer.head.status {
            case 206 where usesRange: try begin(part: answer)
            case 200:
                if let length = answer.head.contentLength, length != size { throw wrongSize("has \(length) bytes", answer.url) }
                toSkip = offset
                responseEnd = size
            default:
                throw Failure(
                    RegistryError(
                        .badResponse, "\(answer.url.display): status \(answer.head.status) is no answer to a request for a blob",
                        status: answer.head.status))
            }
        } catch {
            answer.cancel()
            throw error
        }
        response = answer
    }

    private func begin(part answer: HTTPResponse) throws(Failure) {
        let text = answer.head["content-range"] ?? ""
        guard let range = ContentRange(text), range.first == offset, range.last < size, range.total == nil || range.total == size,
            answer.head.contentLength == nil || answer.head.contentLength == range.last - range.first + 1
        else {
            throw refusedRange(
                "\(answer.url.display): Content-Range \(printable(text, limit: 60)) where bytes \(offset)-\(size - 1) were asked for")
        }
        toSkip = 0
        responseEnd = range.last + 1
    }

    /// A server whose ranges are wrong is asked for the whole blob from now on, and what is known is skipped.
    private func refusedRange(_ description: String) -> Failure {
        rangesAreRefused = true
        return Failure(RegistryError(.badResponse, description), retry: .transient(after: nil))
    }
}
