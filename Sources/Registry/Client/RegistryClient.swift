public import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsTransports
internal import Synchronization

/// A client of OCI distribution registries, with one pool of connections and one set of tokens. Its calls block; any number of threads may
/// make them at the same time.
///
/// TLS: see `RegistryOptions.tlsVerify`. If plain HTTP is allowed, TLS is tried first, and the client remembers the result for each host.
public final class RegistryClient: Sendable {
    let session: RegistrySession
    let authorizer: Authorizer
    /// The scheme that each host speaks, by host and by whether it may do without TLS.
    private let schemes = Mutex<[String: String]>([:])
    let finder: EndpointFinder

    /// Credentials and proxies are taken from the process's environment unless the options say otherwise.
    ///
    /// - Parameter cancellation: ends transfers and pauses, as `cancel` does.
    public convenience init(
        _ options: RegistryOptions = RegistryOptions(), cancellation: Cancellation = Cancellation()
    ) throws(RegistryError) {
        try self.init(options, environment: .ofProcess, cancellation: cancellation)
    }

    init(_ options: RegistryOptions, environment: Environment, cancellation: Cancellation = Cancellation()) throws(RegistryError) {
        session = try RegistrySession(options, environment: environment, cancellation)
        finder = EndpointFinder(options, environment)
        authorizer = Authorizer(session, CredentialStore(options, environment, finder))
    }

    var options: RegistryOptions { session.options }

    /// Whether the registry asked for credentials and accepted them.
    func hasAuthorization(for repository: RemoteRepository) -> Bool {
        ((try? authorizer.authorization(for: repository)) ?? nil) != nil
    }

    /// Ends transfers and pauses between attempts, and refuses new requests, with `RegistryError.Kind.cancelled`. It is final.
    public func cancel() { session.cancel() }

    // MARK: Requests

    /// Runs `body` as often as the retry policy allows.
    func retrying<Value>(_ repository: RemoteRepository, _ body: () throws(Failure) -> Value) throws(RegistryError) -> Value {
        do throws(Failure) {
            return try ComposefsTransports.retrying(retryBudget(of: repository), session.cancellation, body)
        } catch {
            throw error.error
        }
    }

    func retryBudget(of repository: RemoteRepository) -> RetryBudget { RetryBudget(options.retry, hasAlternative: repository.isMirror) }

    /// Sends a request for a path below `/v2/` of the registry, a GET if `method` is nil. Authenticates if the registry asks for it.
    ///
    /// - Parameter request: for errors.
    /// - Throws: for every status but 2xx.
    func open(
        _ repository: RemoteRepository, _ path: String, query: String? = nil, headers: [String], method: String? = nil,
        body: RequestBody = .none, mayShareConnection: Bool = true, for request: RegistryError.Request
    ) throws(Failure) -> HTTPResponse {
        let host = repository.apiHost
        guard Self.isClean(path) else {
            throw Failure(.invalidURL(host + path))
        }
        let target = path + (query.map { "?" + $0 } ?? "")
        let key = (mayUsePlainHTTP(repository) ? "? " : "") + host
        let known = schemes.withLock { $0[key] }
        func send(_ scheme: String, isProbe: Bool) throws(Failure) -> HTTPResponse {
            try open(
                repository, target, headers: headers, method, body, mayShareConnection, scheme: scheme, isProbe: isProbe, request)
        }
        if let known { return try send(known, isProbe: false) }
        if isWithoutTLS(repository) {
            do throws(Failure) {
                return try send("http", isProbe: false)
            } catch {
                guard error.wantsTLS else { throw error }
                return try send("https", isProbe: true)
            }
        }
        let first: Failure
        do throws(Failure) {
            return try send("https", isProbe: true)
        } catch {
            guard error.mayBePlainHTTP, mayUsePlainHTTP(repository) else { throw error }
            first = error
        }
        do throws(Failure) {
            return try send("http", isProbe: false)
        } catch {
            throw error.wantsTLS ? first : error
        }
    }

    /// The URL of the API that serves a repository; nil before its first response.
    func baseURL(of repository: RemoteRepository) -> HTTPURL? {
        let host = repository.apiHost
        let key = (mayUsePlainHTTP(repository) ? "? " : "") + host
        return schemes.withLock { $0[key] }.flatMap { HTTPURL("\($0)://\(host)/") }
    }

    private func mayUsePlainHTTP(_ repository: RemoteRepository) -> Bool {
        switch session.tlsVerify(repository) {
        case true: false
        case false: true
        case nil: HTTPURL("https://\(repository.apiHost)/")?.isLoopback ?? false
        }
    }

    /// Whether a server on this machine speaks no TLS. Checked before any secret is sent, and without reading the system's certificates,
    /// which takes longer than all other steps up to the first blob.
    private func isWithoutTLS(_ repository: RemoteRepository) -> Bool {
        guard session.tlsVerify(repository) == nil, let url = HTTPURL("https://\(repository.apiHost)/v2/"), url.isLoopback else {
            return false
        }
        return session.speaksNoTLS(url, for: repository)
    }

    private func open(
        _ repository: RemoteRepository, _ target: String, headers: [String], _ method: String?, _ body: RequestBody,
        _ mayShareConnection: Bool, scheme: String, isProbe: Bool, _ request: RegistryError.Request
    ) throws(Failure) -> HTTPResponse {
        let host = repository.apiHost
        guard let url = HTTPURL("\(scheme)://\(host)\(target)"), url.target.path.hasPrefix("/v2/") else {
            throw Failure(.invalidURL(host + target))
        }
        // A server without TLS may wait for the end of what it takes for a request line.
        let connectTimeout = isProbe && mayUsePlainHTTP(repository) ? min(options.connectTimeout, .seconds(5)) : options.connectTimeout
        let key = (mayUsePlainHTTP(repository) ? "? " : "") + host
        var asked = (repository: repository, url: url)
        var authorization = try authorizer.authorization(for: repository)
        var renewals = 0
        var moves = 0
        var wasIntroduced = false
        while true {
            let response = try session.open(
                asked.url, for: asked.repository, headers: headers + ["Accept-Encoding: identity"], authorization: authorization,
                method: method, body: body, mayShareConnection: mayShareConnection, connectTimeout: connectTimeout)
            let mayBeRefusal = scheme == "http" && response.head.status == 400
            if !mayBeRefusal { schemes.withLock { $0[key] = scheme } }
            switch response.head.status {
            case 200..<300: return response
            case 401:
                let challenges = Challenge.parse(response.head.all("www-authenticate"))
                // Reads the body too, so that the connection can be used again.
                var refused = session.response(response, to: request)
                if !response.url.hasSameOrigin(as: asked.url) {
                    // The redirect led to another registry, which requires an authorization of its own. The first one's was not sent to it.
                    guard moves < Self.moveLimit, let other = asked.repository.behindRedirect(to: response.url) else {
                        throw Failure(.status(refused))
                    }
                    moves += 1
                    asked = (other, response.url)
                    authorization = try authorizer.authorization(for: other)
                    renewals = 0
                    if authorization == nil {
                        authorization = try authorizer.renew(other, challenges, rejected: nil, from: response.url)
                        renewals = 1
                    }
                    continue
                }
                let rejected = authorization
                if renewals < 2 {
                    authorization = try authorizer.renew(
                        asked.repository, challenges, rejected: rejected, isFresh: renewals > 0, from: asked.url)
                    renewals += 1
                    if authorization != rejected { continue }
                }
                refused.credentials = authorizer.credentials(for: asked.repository)
                throw Failure(.status(refused))
            case 403, 404:
                let refused = session.failure(status: response, for: request)
                // A registry that allows anonymous access may hide from it what authenticated users may read.
                guard authorization == nil, !wasIntroduced, moves == 0, authorizer.knowsCredentials(for: repository) else { throw refused }
                wasIntroduced = true
                authorization = try introduction(repository, url)
                if authorization == nil { throw refused }
            default:
                let failure = session.failure(status: response, for: request)
                if mayBeRefusal, !failure.wantsTLS { schemes.withLock { $0[key] = scheme } }
                throw failure
            }
        }
    }

    /// An authorization for a registry that did not ask for one; nil if it never does.
    private func introduction(_ repository: RemoteRepository, _ url: HTTPURL) throws(Failure) -> String? {
        guard let root = url.resolving("/v2/") else { return nil }
        let response = try session.open(root, for: repository, headers: ["Accept-Encoding: identity"])
        let challenges = Challenge.parse(response.head.all("www-authenticate"))
        response.drain()
        guard response.head.status == 401, response.url.hasSameOrigin(as: root), !challenges.isEmpty else { return nil }
        return try authorizer.renew(repository, challenges, rejected: nil, from: root)
    }

    /// The number of registries that one request may be redirected to.
    private static let moveLimit = 3

    /// Whether no byte of the path has a meaning in a URL, and no segment is empty, `.` or `..`.
    private static func isClean(_ path: String) -> Bool {
        if path == "/v2/" { return true }
        // The path for starting an upload ends with a slash.
        let path = path.hasSuffix("/blobs/uploads/") ? path.dropLast() : path[...]
        return path.split(separator: "/", omittingEmptySubsequences: false).dropFirst().allSatisfy { segment in
            !segment.isEmpty && segment != "." && segment != ".."
                && segment.utf8.allSatisfy { byte in
                    switch byte {
                    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                        UInt8(ascii: "0")...UInt8(ascii: "9"),
                        UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "+"):
                        true
                    default: false
                    }
                }
        }
    }

    // MARK: Manifests

    /// The supported manifest types, most preferred first.
    private static let manifestTypes = [
        "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
    ]

    struct FetchedManifest {
        var bytes: [UInt8]
        var mediaType: String?

        /// Whether it is HTML, whatever tag it begins with. JSON begins with a brace.
        var isWebPage: Bool {
            mediaType == "text/html" && bytes.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0a && $0 != 0x0d } == UInt8(ascii: "<")
        }
    }

    /// A manifest by tag or digest. Its digest is compared with `expected`, and with the Docker-Content-Digest field if the response has
    /// one.
    func fetchManifest(
        _ repository: RemoteRepository, reference: String, expected: ContentDigest?, limit: Int
    ) throws(RegistryError) -> FetchedManifest {
        let request = RegistryError.Request.manifest("\(repository.fullName)\(expected == nil ? ":" : "@")\(reference)")
        return try retrying(repository) { () throws(Failure) in
            let response = try open(
                repository, "/v2/\(repository.name)/manifests/\(reference)",
                headers: ["Accept: " + Self.manifestTypes.joined(separator: ", ")], for: request)
            let bytes = try session.body(of: response, limit: limit, .manifest)
            if let expected { try Self.check(bytes, expected, .requested, response.url) }
            if let announced = response.head["docker-content-digest"], !announced.isEmpty {
                guard let digest = ContentDigest(announced) else {
                    throw Failure(.invalidContentDigest(url: response.url.display, announced))
                }
                try Self.check(bytes, digest, .announced, response.url)
            }
            return FetchedManifest(bytes: bytes, mediaType: response.head.mediaType)
        }
    }

    private static func check(
        _ bytes: [UInt8], _ expected: ContentDigest, _ source: RegistryError.DigestSource, _ url: HTTPURL
    ) throws(Failure) {
        let digest = ContentDigest.of(bytes, expected.algorithm)
        guard digest == expected else {
            throw Failure(.digestMismatch(source, url: url.display, actual: digest, expected: expected))
        }
    }
}
