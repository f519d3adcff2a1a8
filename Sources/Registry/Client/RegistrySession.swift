internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsJSON
internal import ComposefsTransports

/// HTTP requests on behalf of registries. Decides about TLS, certificates and proxies from options and configuration, and turns failures
/// and error statuses into `RegistryError`.
final class RegistrySession: Sendable {
    let options: RegistryOptions
    private let http: HTTPSession
    private let certificates: CertificateDirectories
    private let proxies: ProxySettings
    private let authorityFile: String?

    init(_ options: RegistryOptions, environment: Environment, _ cancellation: Cancellation) throws(RegistryError) {
        self.options = options
        var settings = HTTPOptions()
        settings.userAgent = options.userAgent
        settings.connectTimeout = options.connectTimeout
        settings.requestTimeout = options.requestTimeout
        settings.stallTimeout = options.stallTimeout
        if let observe = options.observe { settings.observe = { observe(RegistryEvent($0)) } }
        do { http = try HTTPSession(settings, cancellation: cancellation) } catch { throw RegistryError(error) }
        certificates = CertificateDirectories(options.certificateDirectory, ConfigurationPaths(environment))
        proxies = ProxySettings(environment)
        authorityFile = options.certificateAuthorities ?? environment["SSL_CERT_FILE"]
    }

    var cancellation: Cancellation { http.cancellation }

    /// Ends pauses and running transfers, and refuses new ones. It is final.
    func cancel() { cancellation.cancel() }

    /// What the options say about TLS, or else the configuration of the registry; nil is the default of `RegistryOptions.tlsVerify`.
    func tlsVerify(_ registry: RemoteRepository) -> Bool? { options.tlsVerify ?? (registry.isInsecure ? false : nil) }

    // MARK: Connections

    private struct Policy: ConnectionPolicy {
        let session: RegistrySession
        let registry: RemoteRepository

        /// The authorities that the registry's configuration trusts are trusted at each host that it redirects to. Client certificates are for
        /// one host: another host gets those of its own.
        func settings(for url: HTTPURL) throws -> ConnectionSettings {
            var settings = ConnectionSettings()
            settings.authorityFile = session.authorityFile
            if url.scheme == "https" {
                settings.verifiesTLS = session.tlsVerify(registry) != false
                let own = try session.certificates.certificates(forRegistry: registry.redirectedFrom ?? registry.domain)
                settings.authorities = own.authorities
                if url.isOrigin(of: registry), registry.redirectedFrom == nil {
                    settings.clients = own.clients
                } else {
                    let other = try session.certificates.certificates(for: url.authority)
                    if other.authorities != own.authorities { settings.authorities += other.authorities }
                    settings.clients = other.clients
                }
            }
            if let proxy = registry.proxy {
                settings.proxy = proxy
            } else {
                settings.proxy = try session.proxies.proxy(for: url)
                settings.proxyExceptions = session.proxies.exceptions
            }
            return settings
        }

        var allowsDowngrade: Bool { session.tlsVerify(registry) == false }
    }

    private func policy(_ registry: RemoteRepository) -> Policy { Policy(session: self, registry: registry) }

    // MARK: Requests

    /// See `HTTPSession.open`.
    func open(
        _ url: HTTPURL, for registry: RemoteRepository, headers: [String] = [], authorization: String? = nil, form: [UInt8]? = nil,
        method: String? = nil, body: RequestBody = .none, mayShareConnection: Bool = true, connectTimeout: Duration? = nil
    ) throws(Failure) -> HTTPResponse {
        let request = HTTPRequest(
            url, headers: headers, authorization: authorization, form: form, method: method, body: body,
            mayShareConnection: mayShareConnection, connectTimeout: connectTimeout)
        do {
            return try http.open(request, policy(registry))
        } catch {
            throw Failure(error)
        }
    }

    /// See `HTTPSession.speaksNoTLS`.
    func speaksNoTLS(_ url: HTTPURL, for registry: RemoteRepository) -> Bool { http.speaksNoTLS(url, policy(registry)) }

    /// See `HTTPSession.begin`. The caller follows redirects.
    func begin(
        _ url: HTTPURL, for registry: RemoteRepository, headers: [String], authorization: String?, method: String, body: UploadBody,
        size: UInt64?
    ) throws(Failure) -> HTTPUpload {
        let request = HTTPRequest(url, headers: headers, authorization: authorization, method: method, body: .stream(body, size: size))
        do {
            return try http.begin(request, policy(registry))
        } catch {
            throw Failure(error)
        }
    }

    /// The whole body of a small document.
    ///
    /// - Parameter limit: in bytes.
    func body(of response: HTTPResponse, limit: Int, _ document: RegistryError.Document) throws(Failure) -> [UInt8] {
        do {
            return try response.body(limit: limit)
        } catch {
            guard case .bodyTooLarge(let size, let limit) = error.reason else { throw Failure(error) }
            throw Failure(.bodyTooLarge(document, url: error.url, size: size, limit: limit))
        }
    }

    // MARK: Failures

    /// It is not tried again: the next connection would not be faster.
    func tooSlow(_ rate: UInt64, _ url: HTTPURL) -> Failure {
        Failure(.tooSlow(url: url.display, rate: rate, window: options.minimumRateWindow, minimum: options.minimumRate))
    }

    /// The failure for an error status. Reads the body for the registry's own code and message.
    ///
    /// - Parameter credentials: what the request was authenticated with, if that may be the reason.
    func failure(
        status response: HTTPResponse, for request: RegistryError.Request, credentials: RegistryError.Credentials? = nil
    ) -> Failure {
        var error = self.response(response, to: request)
        error.credentials = credentials
        switch error.status {
        // 501 and 505 are permanent.
        case 408, 425, 429, 500, 502...504, 506...599:
            let requested = response.head.retryAfter
            if let requested, requested > options.retry.maximumRetryAfter {
                error.retryAfter = (requested, options.retry.maximumRetryAfter)
                return Failure(.status(error))
            }
            return Failure(.status(error), retry: .transient(after: requested))
        default: return Failure(.status(error))
        }
    }

    /// The values of a response with an error status.
    func response(_ response: HTTPResponse, to request: RegistryError.Request) -> RegistryError.Response {
        let body = response.smallBody()
        let (code, message) = Self.registryError(in: body)
        var found = RegistryError.Response(
            request: request, url: response.url.display, status: response.head.status, code: code, message: message)
        found.wantsTLS = found.status == 400 && code == nil && String(decoding: body, as: UTF8.self).contains("HTTPS")
        return found
    }

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
}

extension HTTPURL {
    /// Whether the URL belongs to the server that is asked for the repository.
    func isOrigin(of repository: RemoteRepository) -> Bool { authority == repository.apiHost || "\(host):\(port)" == repository.apiHost }
}
