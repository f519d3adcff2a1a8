internal import ComposefsCCurl
internal import ComposefsCompression
internal import ComposefsConcurrency
internal import ComposefsJSON
internal import ComposefsLinuxSystem
internal import Synchronization

/// An answered request whose body waits to be read.
struct HTTPResponse {
    let transfer: Transfer
    let head: ResponseHead
    /// Where the answer came from, after redirects.
    let url: HTTPURL
}

/// Requests with redirects followed, and failures put into words.
final class HTTPSession: Sendable {
    static let redirectLimit = 10
    /// Error bodies and redirects are read up to here, so that the connection can be used again.
    static let errorBodyLimit = 64 << 10
    /// Client certificates that are shown to one server.
    private static let clientLimit = 16

    let options: RegistryOptions
    let interruption = Interruption()
    private let network: Network
    private let certificates: CertificateDirectories
    private let proxies: ProxySettings
    private let authorityFile: String?
    /// Which of several client certificates is shown to a host, by authority.
    private let clientChoices = Mutex<[String: ClientChoice]>([:])

    private struct ClientChoice {
        var index = 0
        /// The host has answered a request on a connection with it.
        var isTaken = false
    }

    init(_ options: RegistryOptions, environment: Environment) throws(RegistryError) {
        self.options = options
        var settings = NetworkSettings()
        settings.userAgent = options.userAgent
        settings.stallTimeout = options.stallTimeout
        network = try Network(settings)
        certificates = CertificateDirectories(options.certificateDirectory, ConfigurationPlaces(environment))
        proxies = ProxySettings(environment)
        authorityFile = options.certificateAuthorities ?? environment["SSL_CERT_FILE"]
    }

    /// What the options, and where they say nothing the configuration of the registry, say about TLS; nil is the default of
    /// `RegistryOptions.tlsVerify`.
    func tlsVerify(_ registry: RemoteRepository) -> Bool? { options.tlsVerify ?? (registry.isInsecure ? false : nil) }

    /// How to reach `url` on behalf of a registry. Who the registry trusts is trusted wherever it sends us; what proves who we are is for the
    /// registry alone, and another host is shown its own.
    private func connection(to url: HTTPURL, for registry: RemoteRepository) throws(RegistryError) -> ConnectionSettings {
        var settings = ConnectionSettings()
        settings.authorityFile = authorityFile
        if url.scheme == "https" {
            settings.verifiesTLS = tlsVerify(registry) != false
            let own = try certificates.certificates(forRegistry: registry.redirectedFrom ?? registry.domain)
            settings.authorities = own.authorities
            if url.isOrigin(of: registry), registry.redirectedFrom == nil {
                choose(own.clients, for: url, &settings)
            } else {
                let other = try certificates.certificates(for: url.authority)
                if other.authorities != own.authorities { settings.authorities += other.authorities }
                choose(other.clients, for: url, &settings)
            }
        }
        if let proxy = registry.proxy {
            settings.proxy = proxy
        } else {
            settings.proxy = try proxies.proxy(for: url)
            settings.proxyExceptions = proxies.exceptions
        }
        return settings
    }

    private func choose(_ clients: [ClientCertificate], for url: HTTPURL, _ settings: inout ConnectionSettings) {
        guard !clients.isEmpty else { return }
        let index = min(clientChoices.withLock { $0[url.authority]?.index ?? 0 }, clients.count - 1)
        settings.client = clients[index]
        settings.clientIndex = index
        settings.clientCount = clients.count
    }

    /// Whether there is another certificate to show, where the server refused the one that was shown. A connection has one: the server's wish
    /// is not known before, so they are tried in the order of their names.
    ///
    /// A server says so by an alert, and closes. What of that is seen first is chance: often it is a connection that broke. Only where the
    /// host has taken the certificate before is a broken connection nothing but that.
    private func showsNextClient(to url: HTTPURL, after failure: TransferFailure, _ settings: ConnectionSettings) -> Bool {
        guard settings.clientCount > 1 else { return false }
        return clientChoices.withLock { choices in
            let current = choices[url.authority] ?? ClientChoice()
            // Another thread may have gone on meanwhile.
            if current.index != settings.clientIndex { return failure.isAlert || failure.isBrokenConnection }
            guard failure.isAlert || failure.isBrokenConnection && !current.isTaken else { return false }
            let next = settings.clientIndex + 1
            choices[url.authority] = ClientChoice(index: next < settings.clientCount ? next : 0)
            return next < settings.clientCount
        }
    }

    private func tookClient(_ url: HTTPURL, _ settings: ConnectionSettings) {
        guard settings.clientCount > 1 else { return }
        clientChoices.withLock { choices in
            guard choices[url.authority]?.index ?? 0 == settings.clientIndex else { return }
            choices[url.authority] = ClientChoice(index: settings.clientIndex, isTaken: true)
        }
    }

    /// Ends pauses and running transfers, and refuses new ones. For good.
    func cancel() {
        interruption.set()
        network.cancelAll()
    }

    /// Follows redirects of a GET or HEAD, and of others where they keep the method and the body can be sent again; every other status is
    /// returned as it is.
    ///
    /// `authorization` goes to `url`'s own origin only: once a redirect has left it, it is gone for good.
    func open(
        _ url: HTTPURL, for registry: RemoteRepository, headers: [String] = [], authorization: String? = nil, form: [UInt8]? = nil,
        method: String? = nil, body: RequestBody = .none, mayShareConnection: Bool = true, connectTimeout: Duration? = nil
    ) throws(Failure) -> HTTPResponse {
        var target = url
        var secret = authorization
        for _ in 0...Self.redirectLimit {
            if interruption.isSet { throw cancelled(target) }
            var lines = headers
            if let secret { lines.append("Authorization: " + secret) }
            let response = try exchange(
                HTTPRequest(
                    url: target, headers: lines, form: form, method: method, body: body, mayShareConnection: mayShareConnection,
                    connectTimeout: connectTimeout ?? options.connectTimeout), for: registry)
            let (transfer, head) = (response.transfer, response.head)
            guard redirects(head.status, method: method), form == nil else { return response }
            guard let location = head["location"], !location.isEmpty, let next = target.resolving(location) else {
                transfer.cancel()
                throw Failure(
                    RegistryError(.badResponse, "\(target.display): status \(head.status) without a usable Location", status: head.status))
            }
            drain(transfer)
            if target.scheme == "https", next.scheme == "http", tlsVerify(registry) != false {
                throw Failure(
                    RegistryError(
                        .tls, "\(target.display) redirects to \(next.display) without TLS", status: head.status,
                        remedy: .allowPlainTransport))
            }
            if !next.hasSameOrigin(as: target) { secret = nil }
            target = next
        }
        throw Failure(RegistryError(.badResponse, "\(url.display): more than \(Self.redirectLimit) redirects"))
    }

    /// One request and its answer, whatever that is.
    private func exchange(_ request: HTTPRequest, for registry: RemoteRepository) throws(Failure) -> HTTPResponse {
        var request = request
        var left = 2 * Self.clientLimit
        while true {
            do { request.connection = try connection(to: request.url, for: registry) } catch { throw Failure(error) }
            let transfer = network.start(request)
            do {
                let head = try transfer.waitForHead(until: .now + options.requestTimeout)
                tookClient(request.url, request.connection)
                return HTTPResponse(transfer: transfer, head: head, url: request.url)
            } catch {
                transfer.cancel()
                left -= 1
                guard left > 0, showsNextClient(to: request.url, after: error, request.connection) else {
                    throw failure(error, request.url)
                }
            }
        }
    }

    /// Whether no TLS comes about with `url`'s server, whoever it is: nothing but the question is sent. False also where that is not clear.
    func isWithoutTLS(_ url: HTTPURL, for registry: RemoteRepository) -> Bool {
        guard !interruption.isSet, var connection = try? connection(to: url, for: registry) else { return false }
        (connection.verifiesTLS, connection.authorities, connection.authorityFile, connection.client) = (false, [], nil, nil)
        let transfer = network.start(
            HTTPRequest(url: url, method: "HEAD", connectTimeout: min(options.connectTimeout, .seconds(5)), connection: connection))
        defer { transfer.cancel() }
        do throws(TransferFailure) {
            _ = try transfer.waitForHead(until: .now + options.requestTimeout)
            return false
        } catch {
            return failure(error, url).mayBePlainHTTP
        }
    }

    /// Begins a request whose body is made while it is sent. Its answer, redirects among them, is the caller's: see `answer`.
    func begin(
        _ url: HTTPURL, for registry: RemoteRepository, headers: [String], authorization: String?, method: String, body: UploadBody,
        size: UInt64?
    ) throws(Failure) -> Transfer {
        if interruption.isSet { throw cancelled(url) }
        let lines = headers + (authorization.map { ["Authorization: " + $0] } ?? [])
        let connection: ConnectionSettings
        do { connection = try self.connection(to: url, for: registry) } catch { throw Failure(error) }
        return network.start(
            HTTPRequest(
                url: url, headers: lines, method: method, body: .stream(body, size: size), mayShareConnection: false,
                connectTimeout: options.connectTimeout, connection: connection))
    }

    /// The answer to what `begin` began. While the body goes the server has to take something of it in every stall timeout; once it has all of
    /// it, it has the time of a request.
    func answer(to transfer: Transfer) throws(Failure) -> HTTPResponse {
        let url = transfer.request.url
        if case .stream(let body, _) = transfer.request.body { body.waitUntilTaken() }
        do {
            return HTTPResponse(transfer: transfer, head: try transfer.waitForHead(until: .now + options.requestTimeout), url: url)
        } catch {
            transfer.cancel()
            switch error.cause {
            case .late: throw timeout("\(url.display): all was sent, and no answer came in \(seconds(options.requestTimeout)) s")
            case .stalled: throw timeout("\(url.display): the server took next to nothing for \(seconds(options.stallTimeout)) s")
            default: throw failure(error, url)
            }
        }
    }

    /// Not to be tried again: the next connection would bring no more.
    func tooSlow(_ rate: UInt64, _ url: HTTPURL) -> Failure {
        Failure(
            RegistryError(
                .timeout,
                "\(url.display): the server sent \(rate) bytes a second in \(seconds(options.minimumRateWindow)) s, fewer than "
                    + "\(options.minimumRate)"))
    }

    private func timeout(_ text: String) -> Failure { Failure(RegistryError(.timeout, text), retry: .transient(after: nil)) }
    private func seconds(_ duration: Duration) -> Double { Double(duration.clampedNanoseconds) / 1e9 }

    private func redirects(_ status: Int, method: String?) -> Bool {
        status == 307 || status == 308 || [301, 302, 303].contains(status) && (method == nil || method == "HEAD")
    }

    /// The whole body; more than `limit` bytes are an error at the first byte too many.
    func body(of response: HTTPResponse, limit: Int, what: String) throws(Failure) -> [UInt8] {
        if let length = response.head.contentLength, length > UInt64(limit) {
            response.transfer.cancel()
            throw Failure(tooLarge(what, "\(length) bytes", limit, response.url))
        }
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { chunk.deallocate() }
        let deadline = MonotonicTime.now + options.requestTimeout
        while true {
            let count: Int
            do {
                count = try response.transfer.read(into: chunk, until: deadline)
            } catch {
                response.transfer.cancel()
                throw failure(error, response.url)
            }
            if count == 0 { return try decoded(bytes, response, limit: limit, what: what) }
            guard bytes.count + count <= limit else {
                response.transfer.cancel()
                throw Failure(tooLarge(what, "more bytes", limit, response.url))
            }
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
        }
    }

    /// Servers are asked for documents as they are; those that pack them all the same are understood, as by other clients. Blobs are packed by
    /// nature: what comes for them is taken as it is, whatever it is called, and its digest decides.
    private func decoded(_ bytes: [UInt8], _ response: HTTPResponse, limit: Int, what: String) throws(Failure) -> [UInt8] {
        let packed = bytes.withUnsafeBytes { CompressionFormat.detect($0) } == .gzip
        guard packed, ["gzip", "x-gzip"].contains(response.head["content-encoding"]?.lowercased()) else { return bytes }
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
            throw Failure(RegistryError(.badResponse, "\(response.url.display): the \(what) is encoded with gzip, but \(error)"))
        }
        guard plain.count <= limit else { throw Failure(tooLarge(what, "more bytes", limit, response.url)) }
        return plain
    }

    private func tooLarge(_ what: String, _ size: String, _ limit: Int, _ url: HTTPURL) -> RegistryError {
        RegistryError(
            .tooLarge, "\(url.display): the \(what) has \(size), the limit is \(limit)",
            remedy: what == "manifest" ? .raiseManifestLimit : nil)
    }

    /// Reads a small body away; gives up, and the connection with it, at a larger one.
    func drain(_ transfer: Transfer) { _ = smallBody(of: transfer) }

    private func smallBody(of transfer: Transfer) -> [UInt8] {
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 << 10, alignment: 16)
        defer { chunk.deallocate() }
        let deadline = MonotonicTime.now + options.requestTimeout
        while bytes.count < Self.errorBodyLimit {
            let count: Int
            do {
                count = try transfer.read(into: chunk, until: deadline)
            } catch {
                break
            }
            guard count > 0 else { return bytes }
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
        }
        transfer.cancel()
        return bytes
    }

    /// The failure that an error status is. Reads the body for the registry's own words.
    func failure(status response: HTTPResponse, what: String) -> Failure {
        let (code, message) = Self.registryError(in: smallBody(of: response.transfer))
        let status = response.head.status
        var text = "\(what): \(response.url.display) answers \(status)"
        if let reason = Self.reasons[status] { text += " " + reason }
        if code != nil || message != nil {
            text += " (" + [code, message].compactMap { $0 }.joined(separator: ": ") + ")"
        }
        var retry = Failure.Retry.never
        let kind: RegistryError.Kind
        switch status {
        case 401:
            kind = .unauthorized
        case 403:
            kind = .forbidden
            text += "; the repository may be private or the account without access: log in with another one"
        case 404, 410: kind = .notFound
        case 429:
            kind = .rateLimited
            text += "; logging in may raise the limit"
            retry = .transient(after: response.head.retryAfter)
        // Of the 5xx, two say that it will never work.
        case 408, 425, 500, 502...504, 506...599:
            kind = .server
            retry = .transient(after: response.head.retryAfter)
        default: kind = .server
        }
        return Failure(RegistryError(kind, text, status: status, code: code), retry: retry)
    }

    private static let reasons: [Int: String] = [
        400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
        407: "Proxy Authentication Required", 410: "Gone", 416: "Range Not Satisfiable", 425: "Too Early", 429: "Too Many Requests",
        500: "Internal Server Error",
        502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    ]

    /// `{"errors":[{"code":…,"message":…}]}` (distribution-spec, error codes), or a token server's `{"details":…}`.
    private static func registryError(in body: [UInt8]) -> (code: String?, message: String?) {
        guard let value = try? JSONValue.parse(body) else { return (nil, nil) }
        let first = value["errors"]?.array?.first
        let code = first?["code"]?.string ?? value["error"]?.string
        let message =
            first?["message"]?.string ?? value["details"]?.string ?? value["error_description"]?.string ?? value["message"]?.string
        func tidy(_ text: String?) -> String? { text.map { printable($0) }.flatMap { $0.isEmpty ? nil : $0 } }
        return (tidy(code), tidy(message))
    }

    private func cancelled(_ url: HTTPURL) -> Failure { Failure(RegistryError(.cancelled, "\(url.display): cancelled")) }

    /// The failure that a broken transfer is.
    func failure(_ failure: TransferFailure, _ url: HTTPURL) -> Failure {
        let detail = printable(failure.message)
        switch failure.cause {
        case .cancelled: return cancelled(url)
        case .stalled:
            return timeout("\(url.display): the server sent next to nothing for \(seconds(options.stallTimeout)) s")
        case .late:
            return timeout("\(url.display): no complete answer in \(seconds(options.requestTimeout)) s")
        case .headersTooLarge:
            return Failure(RegistryError(.badResponse, "\(url.display): more than \(Transfer.headerLimit) bytes of header fields"))
        case .curl(let raw):
            return self.failure(curl: CURLcode(raw), failure, detail, url)
        }
    }

    private func failure(curl code: CURLcode, _ failure: TransferFailure, _ detail: String, _ url: HTTPURL) -> Failure {
        let before = url.scheme == "https" && !failure.wasEncrypted
        if let status = failure.proxyStatus {
            let reason = status == 407 ? "; it wants a user and password: http://USER:PASSWORD@HOST:PORT" : ""
            return Failure(
                RegistryError(
                    .connection, "no connection to \(url.authority): the proxy refuses with status \(status)\(reason)", status: status),
                retry: status >= 500 ? .unreachable : .never, mayBePlainHTTP: before && status != 407)
        }
        switch code {
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY:
            return Failure(
                RegistryError(.connection, "cannot reach \(url.authority): \(detail); check the name and the network"), retry: .unreachable)
        case CURLE_COULDNT_CONNECT:
            return Failure(
                RegistryError(.connection, "cannot reach \(url.authority): \(detail)"), retry: .unreachable,
                mayBePlainHTTP: before && url.isDefaultPort)
        case CURLE_SSL_CONNECT_ERROR:
            return Failure(
                RegistryError(.tls, "no TLS with \(url.authority): \(detail)", remedy: .allowPlainHTTP), retry: .unreachable,
                mayBePlainHTTP: before)
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_CRL_BADFILE:
            return Failure(
                RegistryError(
                    .tls,
                    "the certificate of \(url.authority) is not trusted: \(detail)", remedy: .trustCertificate))
        case CURLE_SSL_CERTPROBLEM:
            return Failure(RegistryError(.tls, "the client certificate for \(url.authority) cannot be used: \(detail)"))
        case CURLE_SSL_CACERT_BADFILE:
            return Failure(RegistryError(.tls, "the certificate authorities cannot be read: \(detail)"))
        case CURLE_OPERATION_TIMEDOUT:
            return Failure(
                RegistryError(.timeout, "no connection to \(url.authority): \(detail)"), retry: .unreachable,
                mayBePlainHTTP: before && failure.wasConnected)
        // A body that is made while it is sent cannot be sent again by curl itself.
        case CURLE_SEND_FAIL_REWIND, CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE, CURLE_HTTP2,
            CURLE_HTTP2_STREAM, CURLE_AGAIN:
            return Failure(
                RegistryError(.connection, "\(url.display): the connection broke: \(detail)"), retry: .transient(after: nil),
                mayBePlainHTTP: before)
        case CURLE_OUT_OF_MEMORY: return Failure(RegistryError(.resources, "\(url.display): out of memory"))
        default: return Failure(RegistryError(.badResponse, "\(url.display): \(detail)"))
        }
    }
}
