internal import ComposefsCCurl
internal import ComposefsConcurrency
internal import ComposefsLinuxSystem

/// One HTTP exchange: the network thread fills it, one other thread reads it.
///
/// The body passes through a ring buffer of fixed size. When the buffer is full, libcurl stops reading that connection or stream, and TCP or
/// HTTP/2 flow control slows the server down: memory does not grow with a slow reader.
final class Transfer: @unchecked Sendable {
    /// Of a transfer with a connection of its own. What a slow reader leaves waits in the kernel.
    private static let ringSize = 256 << 10
    /// All header lines of one response together.
    static let headerLimit = 64 << 10

    let request: HTTPRequest
    let connection: Connection
    private let core: NetworkCore
    private let monitor = Monitor()

    // Shared, under `monitor`.
    private var ring: ByteRing
    private var head: ResponseHead?
    private var outcome: Result<Void, TransferFailure>?
    private var isPaused = false
    private var isWaiting = false

    // Of the network thread only.
    var handle: UnsafeMutableRawPointer?
    var headerLines: UnsafeMutablePointer<curl_slist>?
    let errorText = UnsafeMutableBufferPointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
    private var partialHead = ResponseHead()
    private var headerBytes = 0
    private var headersWereTooLarge = false
    private var windowStart = MonotonicTime.now
    private var windowBytes = 0

    init(_ request: HTTPRequest, _ connection: Connection, core: NetworkCore) {
        self.request = request
        self.connection = connection
        self.core = core
        ring = ByteRing(capacity: request.mayShareConnection ? HTTPResponse.sharedBodyLimit : Self.ringSize)
        errorText.initialize(repeating: 0)
    }

    deinit { errorText.deallocate() }

    // MARK: The reader's side

    /// Blocks until the response's header fields are complete, or `deadline` has passed.
    func waitForHead(until deadline: MonotonicTime? = nil) throws(TransferFailure) -> ResponseHead {
        try monitor.withLock { () throws(TransferFailure) in
            while true {
                if let head { return head }
                if let outcome {
                    try outcome.get()
                    throw TransferFailure(cause: .curl(CURLE_GOT_NOTHING.rawValue))
                }
                try wait(until: deadline)
            }
        }
    }

    /// Blocks until there are bytes, or `deadline` has passed; 0 at the body's end. Bytes that came before a failure are delivered before it is thrown.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, until deadline: MonotonicTime? = nil
    ) throws(TransferFailure) -> Int {
        guard !buffer.isEmpty else { return 0 }
        var mustResume = false
        let count = try monitor.withLock { () throws(TransferFailure) -> Int in
            while ring.count == 0 {
                if let outcome {
                    try outcome.get()
                    return 0
                }
                try wait(until: deadline)
            }
            let count = ring.read(into: buffer)
            // Half empty: one wake-up of the network thread for many reads.
            if isPaused, ring.count <= ring.capacity / 2 {
                isPaused = false
                mustResume = true
            }
            return count
        }
        if mustResume { core.post(.resume(self)) }
        return count
    }

    /// Closes the connection unless the response is complete. The reader must not use the transfer afterwards.
    func cancel() {
        let isDone = monitor.withLock { outcome != nil }
        if !isDone { core.post(.cancel(self)) }
    }

    private func wait(until deadline: MonotonicTime?) throws(TransferFailure) {
        isWaiting = true
        defer { isWaiting = false }
        guard let deadline else { return monitor.wait() }
        guard monitor.wait(until: deadline) else { throw TransferFailure(cause: .late) }
    }

    // MARK: The network thread's side

    /// One header line; false refuses the response.
    func receiveHeader(_ line: UnsafeRawBufferPointer) -> Bool {
        windowBytes &+= line.count
        headerBytes &+= line.count
        guard headerBytes <= Self.headerLimit else {
            headersWereTooLarge = true
            return false
        }
        let text = String(decoding: line, as: UTF8.self)[...].trimmingLineEnd
        if text.hasPrefix("HTTP/") {
            let words = text.split(separator: " ", maxSplits: 2)
            partialHead = ResponseHead()
            partialHead.isHTTP1 = text.hasPrefix("HTTP/1")
            partialHead.status = words.count > 1 ? Int(words[1]) ?? 0 : 0
        } else if text.isEmpty {
            // 1xx is not the response yet. Trailers have no status line, follow the head and are ignored.
            guard partialHead.status >= 200 else { return true }
            monitor.withLock {
                if head == nil { head = partialHead }
                if isWaiting { monitor.wakeAll() }
            }
        } else if let colon = text.firstIndex(of: ":") {
            let value = String(text[text.index(after: colon)...].trimmingBlanks)
            partialHead.fields.append((name: text[..<colon].lowercased(), value: value))
        }
        return true
    }

    enum Reception { case taken, paused }

    func receiveBody(_ bytes: UnsafeRawBufferPointer) -> Reception {
        let reception = monitor.withLock { () -> Reception in
            guard ring.write(bytes) else {
                isPaused = true
                return .paused
            }
            if isWaiting { monitor.wakeAll() }
            return .taken
        }
        if reception == .taken { windowBytes &+= bytes.count }
        return reception
    }

    /// The next part of the request's body for libcurl; see `UploadBody.read`.
    func sendBody(into buffer: UnsafeMutableRawBufferPointer) -> UploadBody.Reading {
        guard case .stream(let body, _) = request.body else { return .bytes(0) }
        let reading = body.read(into: buffer)
        if case .bytes(let count) = reading { windowBytes &+= count }
        return reading
    }

    func restartWindow(at now: MonotonicTime) {
        windowStart = now
        windowBytes = 0
    }

    /// Whether fewer than `minimum` bytes were moved in the last stall timeout although the reader had room for them.
    func hasStalled(at now: MonotonicTime, timeout: Duration, minimum: Int) -> Bool {
        // Neither a slow reader nor a slow writer on this side is the server's fault. A server that has received a body may process it for a
        // while: that has a deadline of its own.
        if monitor.withLock({ isPaused }) || waitsForBody || waitsForResponse {
            restartWindow(at: now)
            return false
        }
        guard now - windowStart >= timeout else { return false }
        guard windowBytes >= minimum else { return true }
        restartWindow(at: now)
        return false
    }

    private var waitsForBody: Bool {
        if case .stream(let body, _) = request.body { body.isStarved } else { false }
    }

    private var waitsForResponse: Bool {
        switch request.body {
        case .none: return false
        case .bytes: break
        case .stream(let body, _): if !body.isSent { return false }
        }
        return monitor.withLock { head == nil }
    }

    func finish(_ result: Result<Void, TransferFailure>) {
        monitor.withLock {
            if outcome == nil { outcome = result }
            monitor.wakeAll()
        }
        if case .stream(let body, _) = request.body { body.transferEnded() }
    }

    /// Records libcurl's result of the ended transfer; `handle` is still valid.
    func finish(curl code: CURLcode) {
        guard code != CURLE_OK, let handle else { return finish(.success(())) }
        var failure = TransferFailure(cause: headersWereTooLarge ? .headersTooLarge : .curl(code.rawValue))
        failure.message = errorMessage.isEmpty ? ccurl_easy_strerror(code).map { String(cString: $0) } ?? "" : errorMessage
        var time: curl_off_t = 0
        failure.wasConnected = ccurl_get_offset(handle, CURLINFO_CONNECT_TIME_T, &time) == CURLE_OK && time > 0
        time = 0
        failure.wasEncrypted = ccurl_get_offset(handle, CURLINFO_APPCONNECT_TIME_T, &time) == CURLE_OK && time > 0
        var status = 0
        if ccurl_get_long(handle, CURLINFO_HTTP_CONNECTCODE, &status) == CURLE_OK, status >= 300 { failure.proxyStatus = status }
        finish(.failure(failure))
    }

    private var errorMessage: String {
        let bytes = errorText.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension Substring {
    fileprivate var trimmingLineEnd: Substring {
        var slice = self
        while let last = slice.unicodeScalars.last, last == "\r" || last == "\n" { slice.unicodeScalars.removeLast() }
        return slice
    }
}
