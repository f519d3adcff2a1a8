internal import ComposefsCompression
internal import ComposefsConcurrency

/// A response whose body has not been read yet. The caller reads the body to its end, or calls `cancel` or `drain`.
package struct HTTPResponse: Sendable {
    /// `drain` and `smallBody` read up to this many bytes, so that the connection can be used again.
    private static let smallBodyLimit = 64 << 10

    /// The largest body, in bytes, that a request with `mayShareConnection` should ask for: the ring buffer takes all of it, so that the shared
    /// connection is never paused.
    package static let sharedBodyLimit = 1 << 20

    package let head: ResponseHead
    /// The URL that responded, after redirects.
    package let url: HTTPURL
    let transfer: Transfer
    let options: HTTPOptions

    /// Blocks until there are bytes; returns how many, 0 at the end of the body.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(HTTPError) -> Int {
        do {
            return try transfer.read(into: buffer)
        } catch {
            throw HTTPError(error, url, options)
        }
    }

    /// Closes the connection unless the response is complete. The response must not be read afterwards.
    package func cancel() { transfer.cancel() }

    /// Reads the whole body, and decodes it if the server sent it with gzip although it was asked not to.
    ///
    /// - Parameter limit: the largest body, in bytes. Fails at the first byte beyond it.
    package func body(limit: Int) throws(HTTPError) -> [UInt8] {
        if let length = head.contentLength, length > UInt64(limit) {
            cancel()
            throw HTTPError(.bodyTooLarge(size: length, limit: limit), url)
        }
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { chunk.deallocate() }
        let deadline = MonotonicTime.now + options.requestTimeout
        while true {
            let count: Int
            do {
                count = try transfer.read(into: chunk, until: deadline)
            } catch {
                cancel()
                throw HTTPError(error, url, options)
            }
            if count == 0 { return try decoded(bytes, limit: limit) }
            guard bytes.count + count <= limit else {
                cancel()
                throw HTTPError(.bodyTooLarge(size: nil, limit: limit), url)
            }
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
        }
    }

    /// Requests ask for documents without encoding. Some servers compress them all the same, and other clients understand that. Only small
    /// bodies are decoded: a blob may be gzip by itself.
    private func decoded(_ bytes: [UInt8], limit: Int) throws(HTTPError) -> [UInt8] {
        let isCompressed = bytes.withUnsafeBytes { CompressionFormat.detect($0) } == .gzip
        guard isCompressed, ["gzip", "x-gzip"].contains(head["content-encoding"]?.lowercased()) else { return bytes }
        var decompressor = Decompressor(.gzip)
        var plain: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { chunk.deallocate() }
        do {
            var (start, count) = (0, 1)
            while count > 0, plain.count <= limit {
                (start, count) = try bytes.withUnsafeBytes { all in
                    var rest = UnsafeRawBufferPointer(rebasing: all[start...])
                    let count = try decompressor.decompress(&rest, into: chunk)
                    return (all.count - rest.count, count)
                }
                plain.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
            }
            if count == 0 { try decompressor.finish() }
        } catch {
            throw HTTPError(.contentEncoding(detail: "\(error)"), url)
        }
        guard plain.count <= limit else { throw HTTPError(.bodyTooLarge(size: nil, limit: limit), url) }
        return plain
    }

    /// Reads and discards a small body, so that the connection can be used again; closes the connection if the body is larger.
    package func drain() { _ = smallBody() }

    /// The first bytes of the body, at least 64 KiB of them if it has so many. Never fails: for error messages.
    package func smallBody() -> [UInt8] {
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 << 10, alignment: 16)
        defer { chunk.deallocate() }
        let deadline = MonotonicTime.now + options.requestTimeout
        while bytes.count < Self.smallBodyLimit {
            guard let count = try? transfer.read(into: chunk, until: deadline) else { break }
            guard count > 0 else { return bytes }
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
        }
        cancel()
        return bytes
    }
}

/// A request whose body is still being produced; see `HTTPSession.begin`.
package struct HTTPUpload: Sendable {
    let transfer: Transfer
    let options: HTTPOptions
    private let began = ContinuousClock.now

    init(transfer: Transfer, options: HTTPOptions) {
        self.transfer = transfer
        self.options = options
    }

    package func cancel() { transfer.cancel() }

    /// Waits until the whole body is sent, and then for the response. While the body is being sent, the server has to accept some of it in
    /// every stall timeout; afterwards it has the request timeout.
    ///
    /// Redirects are not followed: the body is gone.
    package func response() throws(HTTPError) -> HTTPResponse {
        let url = transfer.request.url
        if case .stream(let body, _) = transfer.request.body { body.waitUntilTaken() }
        do {
            let head = try transfer.waitForHead(until: .now + options.requestTimeout)
            options.observe?(HTTPExchange(transfer.request, status: head.status, since: began))
            return HTTPResponse(head: head, url: url, transfer: transfer, options: options)
        } catch {
            transfer.cancel()
            options.observe?(HTTPExchange(transfer.request, status: nil, since: began))
            switch error.cause {
            case .late: throw HTTPError(.noResponseToUpload(options.requestTimeout), url)
            case .stalled: throw HTTPError(.sendStalled(options.stallTimeout), url)
            default: throw HTTPError(error, url, options)
            }
        }
    }
}
