internal import ComposefsCCurl
internal import ComposefsConcurrency
internal import ComposefsLinuxSystem

/// A request's body, handed over from the thread that produces it to the network thread.
///
/// It passes through a ring buffer of fixed size: the producer waits if the network is slower, and libcurl pauses if the producer is.
package final class UploadBody: @unchecked Sendable {
    static let ringSize = 1 << 20

    package init() {}

    private let monitor = Monitor()
    // Under `monitor`.
    private var ring = ByteRing(capacity: UploadBody.ringSize)
    private var isComplete = false
    private var isAborted = false
    private var hasEnded = false
    private var isWaited = false
    private var isPaused = false
    private var resume: (@Sendable () -> Void)?

    // MARK: The producer's side

    /// Blocks until all of `bytes` are in the buffer. False if the transfer has ended: no more bytes are needed.
    package func write(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            let (taken, wake) = monitor.withLock { () -> (Int, (@Sendable () -> Void)?) in
                while ring.free == 0, !hasEnded { monitor.wait() }
                guard !hasEnded else { return (0, nil) }
                let count = min(rest.count, ring.free)
                guard ring.write(UnsafeRawBufferPointer(rebasing: rest[..<count])) else { return (0, nil) }
                return (count, takeWake())
            }
            wake?()
            guard taken > 0 else { return false }
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
        return true
    }

    /// Marks the body as complete.
    package func finish() { change { isComplete = true } }

    /// Ends the transfer by closing the connection, so that the server does not take what was sent for a complete body.
    package func abort() { change { isAborted = true } }

    /// Blocks until libcurl has taken the whole body, or the transfer has ended.
    func waitUntilTaken() {
        monitor.withLock {
            while !isTaken, !hasEnded { monitor.wait() }
        }
    }

    /// If the size is known, libcurl does not ask again after the last byte.
    private var isTaken: Bool { isComplete && ring.count == 0 }

    private func change(_ body: () -> Void) {
        let wake = monitor.withLock {
            body()
            return takeWake()
        }
        wake?()
    }

    /// Resumes libcurl; returned once for each pause.
    private func takeWake() -> (@Sendable () -> Void)? {
        guard isPaused else { return nil }
        isPaused = false
        return resume
    }

    // MARK: The network thread's side

    enum Reading {
        /// How many; 0 at the end.
        case bytes(Int)
        case pause
        case abort
    }

    func willBeSent(resume: @escaping @Sendable () -> Void) { monitor.withLock { self.resume = resume } }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> Reading {
        monitor.withLock {
            if isAborted { return .abort }
            guard ring.count > 0 else {
                if isComplete { return .bytes(0) }
                isPaused = true
                return .pause
            }
            let count = ring.read(into: buffer)
            monitor.wakeAll()
            return .bytes(count)
        }
    }

    /// Whether libcurl waits for the producer.
    var isStarved: Bool { monitor.withLock { isPaused } }

    /// Whether libcurl has the whole body.
    var isSent: Bool { monitor.withLock { isTaken } }

    func transferEnded() {
        monitor.withLock {
            hasEnded = true
            resume = nil
            monitor.wakeAll()
        }
    }
}

extension NetworkCore {
    /// Method and body of requests that are more than a GET or a form.
    func configureBody(_ handle: UnsafeMutableRawPointer, _ transfer: Transfer) -> Bool {
        let request = transfer.request
        var isRight = true
        if request.method == "HEAD" { return ccurl_set_long(handle, CURLOPT_NOBODY, 1) == CURLE_OK }
        if let method = request.method { isRight = ccurl_set_string(handle, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK }
        switch request.body {
        case .none: break
        case .bytes(let bytes):
            isRight = isRight && ccurl_set_offset(handle, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(bytes.count)) == CURLE_OK
            isRight =
                isRight
                && (bytes + [0]).withUnsafeBufferPointer { bytes in
                    bytes.withMemoryRebound(to: CChar.self) { ccurl_set_string(handle, CURLOPT_COPYPOSTFIELDS, $0.baseAddress) == CURLE_OK }
                }
        case .stream(_, let size):
            isRight = isRight && ccurl_set_long(handle, CURLOPT_UPLOAD, 1) == CURLE_OK
            let length = size.flatMap { curl_off_t(exactly: $0) } ?? -1
            isRight = isRight && ccurl_set_offset(handle, CURLOPT_INFILESIZE_LARGE, length) == CURLE_OK
            _ = ccurl_set_long(handle, CURLOPT_UPLOAD_BUFFERSIZE, 256 << 10)
            let context = Unmanaged.passUnretained(transfer).toOpaque()
            isRight = isRight && ccurl_set_pointer(handle, CURLOPT_READDATA, context) == CURLE_OK
            isRight = isRight && ccurl_set_receiver(handle, CURLOPT_READFUNCTION, sendBody) == CURLE_OK
        }
        return isRight
    }
}

private let sendBody: @convention(c) (UnsafeMutablePointer<CChar>?, Int, Int, UnsafeMutableRawPointer?) -> Int = {
    bytes, size, count, context in
    let (length, overflow) = size.multipliedReportingOverflow(by: count)
    guard let context, !overflow else { return ccurl_send_abort_result() }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    switch transfer.sendBody(into: UnsafeMutableRawBufferPointer(start: bytes, count: length)) {
    case .bytes(let count): return count
    case .pause: return ccurl_send_pause_result()
    case .abort: return ccurl_send_abort_result()
    }
}
