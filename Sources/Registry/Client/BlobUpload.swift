internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsTransports

/// The upload of one blob.
///
/// A blob whose digest is known beforehand is sent in one PUT. Otherwise the bytes are streamed in a PATCH, and a PUT then names the
/// digest. After a broken PATCH the upload continues at the byte that the registry reports: the blob is produced again, and the bytes
/// before that one are skipped.
struct BlobUpload {
    /// After so many more bytes the retry budget is full again.
    private static let progressStep: UInt64 = 64 << 10
    private static let redirectLimit = 5

    private let client: RegistryClient
    private let repository: RemoteRepository
    private let blob: OutgoingBlob
    private let request: RegistryError.Request

    private var location: HTTPURL?
    /// Bytes that the registry has received.
    private var offset: UInt64 = 0
    private var redirects = 0
    /// Whether `location` is the target of a redirect, which has received nothing of the blob.
    private var isRedirected = false
    /// Known when the blob has been produced to its end.
    private var made: SentBlob?

    /// - Parameter location: of an upload that has been started already.
    init(_ client: RegistryClient, _ repository: RemoteRepository, _ blob: OutgoingBlob, location: HTTPURL?) {
        self.client = client
        self.repository = repository
        self.blob = blob
        self.location = location
        made = blob.expected
        request = .upload(repository: repository.fullName)
    }

    /// A failed attempt: the registry is the cause, or the blob.
    private struct AttemptError: AttemptFailure {
        var error: any Error
        var retry = Retry.never
        /// Producing the blob failed.
        var isOfBlob = false
        var cancelled: (any Error)?
        var whenCancelled: AttemptError { AttemptError(error: cancelled ?? error) }
    }

    /// - Throws: `RegistryError`, and the error of producing the blob; in that case the upload is cancelled in the registry.
    mutating func run() throws -> SentBlob {
        let budget = client.retryBudget(of: repository)
        var isFirst = true
        var lastRefill: UInt64 = 0
        do throws(AttemptError) {
            return try retrying(budget, client.session.cancellation) { () throws(AttemptError) in
                do {
                    if !isFirst {
                        resume()
                        if offset >= lastRefill + Self.progressStep { budget.refill() }
                        lastRefill = offset
                        // The response that confirmed the blob may have been lost.
                        if let made, try client.hasBlob(repository, made.digest, size: made.size) { return made }
                    }
                    isFirst = false
                    return try attempt()
                } catch let failure as Failure {
                    throw AttemptError(error: failure.error, retry: failure.retry, cancelled: failure.whenCancelled.error)
                } catch {
                    throw AttemptError(error: error, isOfBlob: true)
                }
            }
        } catch {
            if error.isOfBlob { abandon() }
            throw error.error
        }
    }

    private mutating func attempt() throws -> SentBlob {
        if location == nil {
            offset = 0
            location = try client.beginUpload(repository)
        }
        guard let target = location else { preconditionFailure("an upload that mounts nothing has a location") }
        if let expected = blob.expected, offset == 0 {
            let url = try Self.naming(expected.digest, target)
            let (response, sent) = try stream(to: url, method: "PUT", size: expected.size)
            return try completed(response, sent)
        }
        let (response, sent) = try stream(to: target, method: "PATCH", size: blob.expected.map { $0.size - min($0.size, offset) })
        guard (200..<300).contains(response.head.status) else { throw refused(response) }
        response.drain()
        location = try client.uploadLocation(repository, response)
        offset = sent.size
        let url = try Self.naming(sent.digest, location ?? target)
        let answer = try client.send(repository, to: url, method: "PUT", for: request)
        return try completed(answer, sent)
    }

    /// Sends the bytes that the registry does not have yet. Returns the response, and digest and size of the whole blob.
    private mutating func stream(to url: HTTPURL, method: String, size: UInt64?) throws -> (HTTPResponse, SentBlob) {
        let body = UploadBody()
        let sending = try client.beginSending(repository, to: url, method: method, body, size: size)
        var check = BlobCheck(blob.expected)
        var toSkip = offset
        let sent: SentBlob
        do {
            try blob.produce { bytes in
                check.update(bytes)
                let skipped = min(UInt64(bytes.count), toSkip)
                toSkip -= skipped
                guard body.write(UnsafeRawBufferPointer(rebasing: bytes[Int(skipped)...])) else { throw Stopped() }
            }
            sent = try check.finish()
            made = sent
            body.finish()
        } catch is Stopped {
            // A response before the end of the body is a refusal, whatever its status.
            throw refused(try client.finishSending(repository, sending, for: request))
        } catch {
            body.abort()
            sending.upload.cancel()
            throw error
        }
        return (try client.finishSending(repository, sending, for: request), sent)
    }

    private mutating func completed(_ response: HTTPResponse, _ sent: SentBlob) throws -> SentBlob {
        guard (200..<300).contains(response.head.status) else { throw refused(response) }
        response.drain()
        location = nil
        return sent
    }

    private mutating func refused(_ response: HTTPResponse) -> Failure {
        if [307, 308].contains(response.head.status), redirects < Self.redirectLimit,
            let next = try? client.uploadLocation(repository, response)
        {
            redirects += 1
            isRedirected = true
            response.drain()
            location = next
            return Failure(.uploadRedirected(request, location: next.display), retry: .transient(after: .zero))
        }
        var failure = client.unexpected(response, request)
        // The registry does not know the upload any more, or expects another offset: a new upload may work.
        if [400, 404, 409, 410, 416].contains(response.head.status), offset > 0 { failure.retry = .transient(after: nil) }
        if failure.retry == .never { return failure }
        if response.head.status != 401 { offset = 0 }
        return failure
    }

    /// After a failure: asks how much the registry has received, or starts again.
    private mutating func resume() {
        offset = 0
        if isRedirected {
            isRedirected = false
            return
        }
        guard let current = location.take(), blob.expected == nil else { return }
        guard let response = try? client.send(repository, to: current, method: "GET", for: request) else { return }
        response.drain()
        guard response.head.status == 204, let range = response.head["range"],
            let last = range.split(separator: "-", omittingEmptySubsequences: false).last.flatMap({ UInt64($0) }),
            range.hasPrefix("0-"), last < UInt64.max, let next = try? client.uploadLocation(repository, response)
        else { return }
        location = next
        // "0-0" means one byte, but some registries report it for none. Starting again costs almost nothing.
        if last == 0 { location = nil } else { offset = last + 1 }
    }

    /// Cancels the upload in the registry.
    private func abandon() {
        guard let location else { return }
        if let response = try? client.send(repository, to: location, method: "DELETE", for: request) {
            response.drain()
        }
    }

    /// The URL with the digest added to its query.
    private static func naming(_ digest: ContentDigest, _ url: HTTPURL) throws -> HTTPURL {
        let text = url.text + (url.text.contains("?") ? "&" : "?") + "digest=" + percentEncoded(digest.description)
        guard let named = HTTPURL(text) else {
            throw Failure(.invalidUploadLocation(url: url.display))
        }
        return named
    }

    /// The transfer has ended before the whole blob was sent.
    private struct Stopped: Error {}
}
