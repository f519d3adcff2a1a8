internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsTransports

/// One endpoint of a blob, with what one download has learned about it, on whatever connections the bytes arrive.
final class BlobEndpoint {
    let repository: RemoteRepository
    /// Index among all endpoints of the image's reference.
    let index: Int
    fileprivate let client: RegistryClient
    fileprivate let digest: ContentDigest
    /// Of the whole blob, in bytes.
    fileprivate let size: UInt64
    fileprivate var pace: MinimumRate
    private var rangesAreRefused = false

    init(_ client: RegistryClient, _ repository: RemoteRepository, index: Int, digest: ContentDigest, size: UInt64) {
        self.client = client
        self.repository = repository
        self.index = index
        self.digest = digest
        self.size = size
        pace = MinimumRate(client.options)
    }

    /// Requests the blob's bytes from an offset on. Waits for the response, not for the body.
    func connect(from offset: UInt64) throws(Failure) -> RegistryBlobConnection {
        let usesRange = offset > 0 && offset < size && !rangesAreRefused
        let response: HTTPResponse
        do throws(Failure) {
            // libcurl buffers up to 32 MiB of a paused HTTP/2 stream, and all streams share one TCP window. So blobs get connections of
            // their own, except those that fit into the ring buffer, which are never paused.
            response = try client.open(
                repository, "/v2/\(repository.name)/blobs/\(digest)", headers: usesRange ? ["Range: bytes=\(offset)-\(size - 1)"] : [],
                mayShareConnection: client.options.multiplexesBlobs || size - offset <= UInt64(HTTPResponse.sharedBodyLimit),
                for: .blob(repository: repository.fullName))
        } catch {
            guard usesRange, error.error.status == 416 else { throw error }
            throw refusedRange(error.error.reason)
        }
        do throws(Failure) {
            switch response.head.status {
            case 206 where usesRange:
                return RegistryBlobConnection(self, response, at: offset, end: try endOfPart(response, from: offset))
            case 200:
                if let length = response.head.contentLength, length != size { throw wrongSize(.announced(length), response.url) }
                return RegistryBlobConnection(self, response, skipping: offset, end: size)
            default:
                throw Failure(
                    .unexpectedStatus(.blob(repository: repository.fullName), url: response.url.display, status: response.head.status))
            }
        } catch {
            response.cancel()
            throw error
        }
    }

    private func endOfPart(_ response: HTTPResponse, from offset: UInt64) throws(Failure) -> UInt64 {
        let text = response.head["content-range"] ?? ""
        guard let range = ContentRange(text), range.first == offset, range.last < size, range.total == nil || range.total == size,
            response.head.contentLength == nil || response.head.contentLength == range.last - range.first + 1
        else {
            throw refusedRange(.invalidContentRange(url: response.url.display, text, first: offset, last: size - 1))
        }
        return range.last + 1
    }

    /// If the server's ranges are wrong, the next request is for the whole blob, and the known bytes are skipped.
    private func refusedRange(_ reason: RegistryError.Reason) -> Failure {
        rangesAreRefused = true
        return Failure(reason, retry: .transient(after: nil))
    }

    fileprivate func wrongSize(_ how: RegistryError.SizeFault, _ url: HTTPURL) -> Failure {
        Failure(.blobSize(url: url.display, how, expected: size))
    }
}

/// The bytes of one response: exactly as many as it announced, or an error.
final class RegistryBlobConnection: BlobConnection {
    private let endpoint: BlobEndpoint
    private let response: HTTPResponse
    /// The reader's position, in bytes from the start of the blob.
    private var offset: UInt64
    /// Bytes before `offset` that this response repeats.
    private var toSkip: UInt64
    /// The end of the response, in bytes from the start of the blob.
    private let end: UInt64

    fileprivate init(_ endpoint: BlobEndpoint, _ response: HTTPResponse, at offset: UInt64, end: UInt64) {
        self.endpoint = endpoint
        self.response = response
        self.offset = offset
        toSkip = 0
        self.end = end
    }

    fileprivate init(_ endpoint: BlobEndpoint, _ response: HTTPResponse, skipping offset: UInt64, end: UInt64) {
        self.endpoint = endpoint
        self.response = response
        self.offset = offset
        toSkip = offset
        self.end = end
    }

    deinit { response.cancel() }

    var usesHTTP1: Bool { response.head.isHTTP1 }

    func close() { response.cancel() }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int? {
        do throws(Failure) {
            while toSkip > 0 { toSkip -= UInt64(try receive(.init(rebasing: buffer[..<min(buffer.count, Int(clamping: toSkip))]))) }
            if offset == endpoint.size {
                try expectEnd()
                return 0
            }
            // The response is a part of the blob, as its Content-Range says.
            if offset == end { return nil }
            let count = try receive(.init(rebasing: buffer[..<min(buffer.count, Int(clamping: end - offset))]))
            offset += UInt64(count)
            return count
        } catch {
            throw OriginFailure(error)
        }
    }

    private func receive(_ buffer: UnsafeMutableRawBufferPointer) throws(Failure) -> Int {
        let count: Int
        do {
            count = try endpoint.pace.measure { () throws(HTTPError) in try response.read(into: buffer) }
        } catch {
            throw Failure(error)
        }
        if let rate = endpoint.pace.isTooLow() { throw endpoint.client.session.tooSlow(rate, response.url) }
        guard count > 0 else { throw endedEarly() }
        return count
    }

    /// All bytes have arrived: one more byte is an error, a connection that breaks now is not.
    private func expectEnd() throws(Failure) {
        var extra: UInt8 = 0
        let count = withUnsafeMutableBytes(of: &extra) { (try? response.read(into: $0)) ?? 0 }
        guard count == 0 else { throw endpoint.wrongSize(.longer, response.url) }
    }

    private func endedEarly() -> Failure {
        let have = offset - toSkip
        guard response.head.endsWithConnection else {
            return endpoint.wrongSize(.ends(after: have), response.url)
        }
        return Failure(
            .connectionEnded(url: response.url.display, received: have, size: endpoint.size),
            retry: .transient(after: nil))
    }
}

extension OriginFailure {
    init(_ failure: Failure) {
        self.init(
            failure.error, retry: failure.retry, concernsOrigin: failure.error.concernsOneEndpoint, cancelled: failure.whenCancelled.error)
    }
}
