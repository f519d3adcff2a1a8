internal import ComposefsBytes
internal import ComposefsCCurl
internal import ComposefsConcurrency
internal import ComposefsLinuxSystem
internal import Glibc
internal import Synchronization

/// One thread that owns a curl multi handle: a pool of all connections of a session. HTTP/2 streams share a connection.
final class Network: Sendable {
    private let core: NetworkCore
    private let thread: pthread_t

    init(_ options: HTTPOptions) throws(HTTPError) {
        try CurlLibrary.load()
        guard Self.globalInitialisation == CURLE_OK, let multi = ccurl_multi_init() else {
            throw HTTPError(.initialization(detail: "libcurl cannot be initialised"), nil)
        }
        core = NetworkCore(multi: multi, options: options)
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<NetworkCore>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(core).toOpaque())
        guard status == 0 else {
            Unmanaged.passUnretained(core).release()
            throw HTTPError(.initialization(detail: "cannot start the network thread: \(String(cString: strerror(status)))"), nil)
        }
        self.thread = thread
    }

    deinit {
        core.post(.stop)
        // The core has no reference to `Network`, so this never runs on the thread it waits for.
        pthread_join(thread, nil)
    }

    func start(_ request: HTTPRequest, _ connection: Connection) -> Transfer {
        let transfer = Transfer(request, connection, core: core)
        if case .stream(let body, _) = request.body { body.willBeSent { [core] in core.post(.resume(transfer)) } }
        core.post(.start(transfer))
        return transfer
    }

    /// Every transfer fails as cancelled, later ones too.
    func cancelAll() { core.post(.cancelAll) }

    private static let globalInitialisation: CURLcode = ccurl_global_init(Int(CURL_GLOBAL_ALL))
}

/// The thread's own state. Everything but `commands` and the wake-up belongs to the thread.
final class NetworkCore: @unchecked Sendable {
    enum Command {
        case start(Transfer)
        case resume(Transfer)
        case cancel(Transfer)
        case cancelAll
        case stop
    }

    private let multi: UnsafeMutableRawPointer
    private let options: HTTPOptions
    private let commands = Mutex<[Command]>([])
    private var isCancelled = false
    private var active: [UnsafeMutableRawPointer: Transfer] = [:]
    /// Unused handles. They keep TLS sessions, so they are used again.
    private var idle: [UnsafeMutableRawPointer] = []
    private static let idleLimit = 16
    private var authorityFiles: [String: [UInt8]] = [:]

    init(multi: UnsafeMutableRawPointer, options: HTTPOptions) {
        self.multi = multi
        self.options = options
    }

    deinit {
        for handle in idle { ccurl_easy_cleanup(handle) }
        ccurl_multi_cleanup(multi)
    }

    /// From any thread.
    func post(_ command: Command) {
        commands.withLock { $0.append(command) }
        ccurl_multi_wakeup(multi)
    }

    func run() {
        // OpenSSL writes with write(2): a closed connection must be an error here, not a SIGPIPE that ends the program. Other signals belong
        // to the threads that expect them.
        var signals = sigset_t()
        sigfillset(&signals)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        _ = ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, 32)
        // A stall is noticed at most a quarter of its timeout late.
        let pollTimeout = Int32(clamping: min(options.stallTimeout.milliseconds(atLeast: 40) / 4, 1000))
        while true {
            let batch = commands.withLock { queue in
                defer { queue.removeAll(keepingCapacity: true) }
                return queue
            }
            for command in batch {
                guard obey(command) else { return }
            }
            var running: Int32 = 0
            ccurl_multi_perform(multi, &running)
            collectFinished()
            checkForStalls()
            ccurl_multi_poll(multi, active.isEmpty ? 60_000 : pollTimeout)
        }
    }

    /// False ends the thread.
    private func obey(_ command: Command) -> Bool {
        switch command {
        case .start(let transfer):
            start(transfer)
        case .resume(let transfer):
            guard let handle = transfer.handle else { return true }
            transfer.restartWindow(at: .now)
            _ = ccurl_resume(handle)
        case .cancel(let transfer):
            end(transfer, .failure(TransferFailure(cause: .cancelled)))
        case .cancelAll:
            isCancelled = true
            endAll()
        case .stop:
            endAll()
            return false
        }
        return true
    }

    private func endAll() {
        for transfer in Array(active.values) { end(transfer, .failure(TransferFailure(cause: .cancelled))) }
    }

    private func collectFinished() {
        var left: Int32 = 0
        while let message = ccurl_multi_info_read(multi, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let handle = message.pointee.easy_handle, let transfer = active[handle] else {
                continue
            }
            let code = message.pointee.data.result
            transfer.finish(curl: code)
            end(transfer, .success(()))
        }
    }

    private func checkForStalls() {
        guard !active.isEmpty else { return }
        let now = MonotonicTime.now
        let stalled = active.values.filter { $0.hasStalled(at: now, timeout: options.stallTimeout, minimum: options.stallMinimum) }
        for transfer in stalled { end(transfer, .failure(TransferFailure(cause: .stalled, wasConnected: true))) }
    }

    /// Removes the transfer from libcurl. `result` is its outcome unless it already has one.
    private func end(_ transfer: Transfer, _ result: Result<Void, TransferFailure>) {
        transfer.finish(result)
        guard let handle = transfer.handle else { return }
        transfer.handle = nil
        active[handle] = nil
        ccurl_multi_remove_handle(multi, handle)
        ccurl_easy_reset(handle)
        if idle.count < Self.idleLimit { idle.append(handle) } else { ccurl_easy_cleanup(handle) }
        ccurl_slist_free_all(transfer.headerLines)
        transfer.headerLines = nil
    }

    private func start(_ transfer: Transfer) {
        guard !isCancelled else { return transfer.finish(.failure(TransferFailure(cause: .cancelled))) }
        guard let handle = idle.popLast() ?? ccurl_easy_init() else {
            return transfer.finish(.failure(TransferFailure(cause: .curl(CURLE_OUT_OF_MEMORY.rawValue))))
        }
        transfer.handle = handle
        active[handle] = transfer
        transfer.restartWindow(at: .now)
        guard configure(handle, transfer), ccurl_multi_add_handle(multi, handle) == CURLM_OK else {
            return end(
                transfer, .failure(TransferFailure(cause: .curl(CURLE_FAILED_INIT.rawValue), message: "libcurl refused the request")))
        }
    }

    /// The certificates of a file, or of libcurl's default file for nil; empty if it cannot be read.
    private func authorities(in file: String?) -> [UInt8] {
        let path = file ?? ccurl_authority_file().map { String(cString: $0) }
        guard let path else { return [] }
        if let read = authorityFiles[path] { return read }
        let bytes = (try? FileDescriptor.open(ByteString(path), .readOnly).readAll(limit: 16 << 20)) ?? []
        authorityFiles[path] = bytes
        return bytes
    }

    private func configure(_ handle: UnsafeMutableRawPointer, _ transfer: Transfer) -> Bool {
        let request = transfer.request
        let context = Unmanaged.passUnretained(transfer).toOpaque()  // `active` keeps it alive as long as libcurl calls back
        var isRight = true
        func set(_ option: CURLoption, _ value: Int) { isRight = isRight && ccurl_set_long(handle, option, value) == CURLE_OK }
        func set(_ option: CURLoption, _ value: String) { isRight = isRight && ccurl_set_string(handle, option, value) == CURLE_OK }
        func set(_ option: CURLoption, pointer: UnsafeMutableRawPointer?) {
            isRight = isRight && ccurl_set_pointer(handle, option, pointer) == CURLE_OK
        }
        set(CURLOPT_URL, request.url.text)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
        set(CURLOPT_FOLLOWLOCATION, 0)  // HTTPSession does it: libcurl of this version forwards custom headers to every host
        set(CURLOPT_NOSIGNAL, 1)
        set(CURLOPT_USERAGENT, options.userAgent)
        set(CURLOPT_HTTP_VERSION, Int(request.mayShareConnection ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1))
        set(CURLOPT_PIPEWAIT, request.mayShareConnection ? 1 : 0)  // prefers one more stream to one more connection
        // A hint: libcurl refuses it if a reused handle still has its buffer.
        _ = ccurl_set_long(handle, CURLOPT_BUFFERSIZE, 64 << 10)
        set(CURLOPT_TCP_KEEPALIVE, 1)
        set(CURLOPT_CONNECTTIMEOUT_MS, (request.connectTimeout ?? options.connectTimeout).milliseconds(atLeast: 1))
        set(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
        let connection = transfer.connection.settings
        set(CURLOPT_SSL_VERIFYPEER, connection.verifiesTLS ? 1 : 0)
        set(CURLOPT_SSL_VERIFYHOST, connection.verifiesTLS ? 2 : 0)
        if !connection.authorities.isEmpty {
            // Replaces libcurl's file, so that file's certificates are added.
            let all = connection.authorities + authorities(in: connection.authorityFile)
            isRight = isRight && all.withUnsafeBytes { ccurl_set_authorities(handle, $0.baseAddress, $0.count) } == CURLE_OK
        } else if let file = connection.authorityFile {
            set(CURLOPT_CAINFO, file)
        }
        if let client = transfer.connection.client {
            set(CURLOPT_SSLCERT, client.certificate)
            set(CURLOPT_SSLKEY, client.key)
        }
        // Always set, so that libcurl does not read the environment.
        set(CURLOPT_PROXY, connection.proxy?.text ?? "")
        set(CURLOPT_NOPROXY, connection.proxyExceptions)
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        set(CURLOPT_HEADEROPT, Int(CURLHEADER_SEPARATE))  // the proxy must not get the Authorization field
        for line in request.headers + (request.authorization.map { ["Authorization: " + $0] } ?? []) {
            guard let lines = ccurl_slist_append(transfer.headerLines, line) else { return false }
            transfer.headerLines = lines
        }
        set(CURLOPT_HTTPHEADER, pointer: transfer.headerLines)
        if let form = request.form {
            set(CURLOPT_POSTFIELDSIZE, form.count)
            isRight =
                isRight
                && form.withUnsafeBufferPointer { bytes in
                    bytes.withMemoryRebound(to: CChar.self) { ccurl_set_string(handle, CURLOPT_COPYPOSTFIELDS, $0.baseAddress) == CURLE_OK }
                }
        }
        isRight = isRight && configureBody(handle, transfer)
        set(CURLOPT_ERRORBUFFER, pointer: transfer.errorText.baseAddress)
        set(CURLOPT_HEADERDATA, pointer: context)
        set(CURLOPT_WRITEDATA, pointer: context)
        isRight = isRight && ccurl_set_receiver(handle, CURLOPT_HEADERFUNCTION, receiveHeader) == CURLE_OK
        isRight = isRight && ccurl_set_receiver(handle, CURLOPT_WRITEFUNCTION, receiveBody) == CURLE_OK
        return isRight
    }
}

/// The transfer of a curl callback, and the bytes that it received; nil if the arguments are invalid.
private func received(
    _ bytes: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ context: UnsafeMutableRawPointer?
) -> (Transfer, UnsafeRawBufferPointer)? {
    let (length, overflow) = size.multipliedReportingOverflow(by: count)
    guard let context, !overflow else { return nil }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return (transfer, UnsafeRawBufferPointer(start: bytes, count: length))
}

private let receiveHeader: @convention(c) (UnsafeMutablePointer<CChar>?, Int, Int, UnsafeMutableRawPointer?) -> Int = {
    bytes, size, count, context in
    guard let (transfer, received) = received(bytes, size, count, context) else { return 0 }
    return transfer.receiveHeader(received) ? received.count : 0
}

private let receiveBody: @convention(c) (UnsafeMutablePointer<CChar>?, Int, Int, UnsafeMutableRawPointer?) -> Int = {
    bytes, size, count, context in
    guard let (transfer, received) = received(bytes, size, count, context) else { return 0 }
    switch transfer.receiveBody(received) {
    case .taken: return received.count
    case .paused: return ccurl_pause_result()
    }
}
