public import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsTransports
internal import Synchronization

/// A client of OCI distribution registries: one pool of connections, one set of tokens. Its calls block; make them from threads of your own,
/// as many at once as you like.
///
/// TLS: see `RegistryOptions.tlsVerify`. Where plain HTTP is allowed, TLS is tried first and what was found is kept for the client's life.
public final class RegistryClient: Sendable {
    let session: RegistrySession
    let authorizer: Authorizer
    /// How a server was found to speak, by whether it may do without TLS and by host.
    private let schemes = Mutex<[String: String]>([:])
    let places: PlaceFinder

    /// Credentials and proxies come from the process's environment unless the options say otherwise.
    ///
    /// - Parameter cancellation: ends transfers and pauses, as `cancel` does.
    public convenience init(
        _ options: RegistryOptions = RegistryOptions(), cancellation: Cancellation = Cancellation()
    ) throws(RegistryError) {
        try self.init(options, environment: .ofProcess, cancellation: cancellation)
    }

    init(_ options: RegistryOptions, environment: Environment, cancellation: Cancellation = Cancellation()) throws(RegistryError) {
        session = try RegistrySession(options, environment: environment, cancellation)
        places = PlaceFinder(options, environment)
        authorizer = Authorizer(session, CredentialStore(options, environment, places))
    }

    var options: RegistryOptions { session.options }

    /// Whether the registry asked for credentials, and took them.
    func hasAuthorization(for repository: RemoteRepository) -> Bool {
        ((try? authorizer.authorization(for: repository)) ?? nil) != nil
    }

    /// Ends transfers and pauses between tries, and refuses new requests, with `RegistryError.Kind.cancelled`. For good.
    public func cancel() { session.cancel() }

    // MARK: Requests

    /// Runs `body` again as the policy says.
    func retrying<Value>(_ repository: RemoteRepository, _ body: () throws(Failure) -> Value) throws(RegistryError) -> Value {
        do throws(Failure) {
            return try ComposefsTransports.retrying(retryBudget(of: repository), session.cancellation, body)
        } catch {
            throw error.error
        }
    }

    func retryBudget(of repository: RemoteRepository) -> RetryBudget { RetryBudget(options.retry, hasAlternative: repository.isMirror) }

    /// A request, GET where `method` is nil, for a path below the registry; throws for every status but 2xx.
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
        do throws(Failure) {
            if known == nil, isWithoutTLS(repository) {
                return try open(
                    repository, target, headers: headers, method, body, mayShareConnection, scheme: "http", isProbe: false, request)
            }
            return try open(
                repository, target, headers: headers, method, body, mayShareConnection, scheme: known ?? "https", isProbe: known == nil,
                request)
        } catch {
            guard known == nil, error.mayBePlainHTTP, mayUsePlainHTTP(repository) else { throw error }
            return try open(
                repository, target, headers: headers, method, body, mayShareConnection, scheme: "http", isProbe: false, request)
        }
    }

    /// Where a repository's API was found to be; nil before the first answer.
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

    /// Whether a server on this machine is seen to have no TLS. Asked before anything is told to it, and without reading the system's
    /// certificates, which takes longer than all other steps up to the first blob.
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
            schemes.withLock { $0[key] = scheme }
            switch response.head.status {
            case 200..<300: return response
            case 401:
                let challenges = Challenge.parse(response.head.all("www-authenticate"))
                // Reads the body too, so that the connection can be used again.
                var refused = session.response(response, to: request)
                if !response.url.hasSameOrigin(as: asked.url) {
                    // Another registry, which wants an authorization of its own. Our secrets were left behind at the redirect.
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
                // A registry that lets strangers in may hide from them what those that it knows may read.
                guard authorization == nil, !wasIntroduced, moves == 0, authorizer.knowsCredentials(for: repository) else { throw refused }
                wasIntroduced = true
                authorization = try introduction(repository, url)
                if authorization == nil { throw refused }
            default: throw session.failure(status: response, for: request)
            }
        }
    }

    /// What the registry takes for credentials though it did not ask for any; nil where it never does.
    private func introduction(_ repository: RemoteRepository, _ url: HTTPURL) throws(Failure) -> String? {
        guard let root = url.resolving("/v2/") else { return nil }
        let response = try session.open(root, for: repository, headers: ["Accept-Encoding: identity"])
        let challenges = Challenge.parse(response.head.all("www-authenticate"))
        response.drain()
        guard response.head.status == 401, response.url.hasSameOrigin(as: root), !challenges.isEmpty else { return nil }
        return try authorizer.renew(repository, challenges, rejected: nil, from: root)
    }

    /// Registries that one request is sent on to.
    private static let moveLimit = 3

    /// Names, tags and digests have no byte that means something in a URL, and no empty, `.` or `..` segment.
    private static func isClean(_ path: String) -> Bool {
        if path == "/v2/" { return true }
        // Uploads begin at a path that ends with a slash.
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

    /// The manifest types that are understood, in the order of preference.
    private static let manifestTypes = [
        "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
    ]

    struct FetchedManifest {
        var bytes: [UInt8]
        var mediaType: String?

        /// Whether it is for people: JSON begins with a brace, whatever it is called.
        var isWebPage: Bool {
            mediaType == "text/html" && bytes.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0a && $0 != 0x0d } == UInt8(ascii: "<")
        }
    }

    /// A manifest by tag or digest. Compared with `expected` and with the Docker-Content-Digest field where the registry sends one.
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
