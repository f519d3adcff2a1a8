internal import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsJSON
internal import ComposefsLinuxSystem

/// Bearer tokens and Basic credentials by registry and scope. Each is fetched once for all threads that need it.
final class Authorizer: Sendable {
    private struct Key: Hashable {
        var apiHost: String
        var scope: String
    }

    private struct Entry {
        var authorization: String
        var challenge: Challenge
        var registry: HTTPURL
        /// The index into `scopes` that it was issued for.
        var candidate = 0
        /// Nil if it does not expire.
        var renewal: MonotonicTime?
    }

    /// Guarded by `monitor`.
    private final class State: @unchecked Sendable {
        var entries: [Key: Entry] = [:]
        var inFlight: Set<Key> = []
    }

    /// The lifetime in seconds of a token whose server does not send one (token authentication specification).
    private static let defaultLifetime: Int64 = 60
    private static let responseLimit = 1 << 20

    private let session: RegistrySession
    private let store: CredentialStore
    private let monitor = Monitor()
    private let state = State()

    init(_ session: RegistrySession, _ store: CredentialStore) {
        self.session = session
        self.store = store
    }

    /// The last accepted authorization for this repository, renewed if it is about to expire; nil before the registry's first challenge.
    func authorization(for repository: RemoteRepository) throws(Failure) -> String? {
        let key = Key(apiHost: repository.apiHost, scope: repository.scopes.joined(separator: " "))
        guard let entry = monitor.withLock({ state.entries[key] }) else { return nil }
        guard let renewal = entry.renewal, renewal <= .now else { return entry.authorization }
        return try renew(repository, [entry.challenge], rejected: entry.authorization, from: entry.registry)
    }

    /// Answers a 401. `rejected` is the authorization that the request carried. If another thread has renewed it meanwhile, that result is
    /// returned.
    ///
    /// - Parameter isFresh: whether `rejected` was obtained for this very request. Another one like it would not help, so other scopes are
    ///   requested.
    func renew(
        _ repository: RemoteRepository, _ challenges: [Challenge], rejected: String?, isFresh: Bool = false, from registry: HTTPURL
    ) throws(Failure) -> String {
        let key = Key(apiHost: repository.apiHost, scope: repository.scopes.joined(separator: " "))
        let (renewed, candidate): (String?, Int) = monitor.withLock {
            while state.inFlight.contains(key) { monitor.wait() }
            let entry = state.entries[key]
            if let entry, entry.authorization != rejected { return (entry.authorization, 0) }
            state.inFlight.insert(key)
            return (nil, (entry?.candidate ?? 0) + (entry != nil && isFresh ? 1 : 0))
        }
        if let renewed { return renewed }
        do throws(Failure) {
            let entry = try answer(challenges, repository, registry, from: candidate)
            monitor.withLock {
                state.entries[key] = entry
                state.inFlight.remove(key)
                monitor.wakeAll()
            }
            return entry.authorization
        } catch {
            monitor.withLock {
                state.entries[key] = nil
                state.inFlight.remove(key)
                monitor.wakeAll()
            }
            throw error
        }
    }

    func knowsCredentials(for repository: RemoteRepository) -> Bool { ((try? store.find(for: repository)) ?? nil) != nil }

    /// The credentials that an error about a rejected request names.
    func credentials(for repository: RemoteRepository) -> RegistryError.Credentials {
        guard let found = try? store.find(for: repository) else { return .none(registry: repository.domain) }
        return .rejected(found.origin)
    }

    private func answer(
        _ challenges: [Challenge], _ repository: RemoteRepository, _ registry: HTTPURL, from candidate: Int
    ) throws(Failure) -> Entry {
        let found: FoundCredentials?
        do { found = try store.find(for: repository) } catch { throw Failure(error) }
        session.options.observe?(.credentials(registry: repository.domain, origin: found?.origin))
        if let bearer = challenges.first(where: { $0.scheme == "bearer" && $0.parameters["realm"] != nil }) {
            if case .registryToken(let token) = found?.credentials {
                guard Self.isFieldValue(token) else { throw unusableToken(registry.display) }
                return Entry(authorization: "Bearer " + token, challenge: bearer, registry: registry)
            }
            return try fetchToken(bearer, repository, found, registry, from: candidate)
        }
        if let basic = challenges.first(where: { $0.scheme == "basic" }) {
            guard let authorization = found?.credentials.basicAuthorization else {
                throw Failure(.authenticationRequired(host: repository.apiHost, credentials(for: repository)))
            }
            return Entry(authorization: authorization, challenge: basic, registry: registry)
        }
        throw Failure(.unsupportedChallenge(url: registry.display, schemes: challenges.map(\.scheme)))
    }

    /// The scopes that a token may be requested for, most likely first.
    ///
    /// A challenge states what its request needs, but not every registry fills it in correctly: some leave it empty, name an example, or
    /// the same repository for all. A scope with another repository's name comes after the own one: it is right if a proxy has another name
    /// for the repository. A push requests everything that its requests will need.
    static func scopes(_ challenge: Challenge, _ repository: RemoteRepository) -> [[String]] {
        let own = repository.scopes
        let asked = (challenge.parameters["scope"] ?? "").split(separator: " ").map(String.init)
        guard !asked.isEmpty, asked != own else { return [own] }
        let isOurs = asked.contains { $0.hasPrefix("repository:\(repository.name):") }
        if repository.isWritten { return isOurs ? [own] : [own, own + asked] }
        return isOurs ? [asked, own] : [own, asked]
    }

    /// - Parameter candidate: the index into `scopes` to begin with. The later ones are requested if the token server refuses it.
    private func fetchToken(
        _ challenge: Challenge, _ repository: RemoteRepository, _ found: FoundCredentials?, _ registry: HTTPURL, from candidate: Int
    ) throws(Failure) -> Entry {
        let realm = challenge.parameters["realm"] ?? ""
        guard let base = HTTPURL(realm) else {
            throw Failure(.invalidTokenRealm(url: registry.display, realm: realm))
        }
        // Plain HTTP is allowed only on this machine, and never after TLS.
        let isSafe = base.scheme == "https" || (registry.scheme == "http" && base.isLoopback)
        guard isSafe || session.tlsVerify(repository) == false else {
            throw Failure(.tokenWithoutTLS(host: registry.authority, realm: base.display))
        }
        let candidates = Self.scopes(challenge, repository)
        var failure: Failure?
        for index in min(candidate, candidates.count - 1)..<candidates.count {
            do throws(Failure) {
                var entry = try fetchToken(challenge, candidates[index], base, repository, found, registry)
                entry.candidate = index
                return entry
            } catch {
                guard let status = error.error.status, [400, 401, 403, 404].contains(status) else { throw error }
                failure = failure ?? error
            }
        }
        throw failure ?? unusableToken(base.display)
    }

    private func fetchToken(
        _ challenge: Challenge, _ scopes: [String], _ base: HTTPURL, _ repository: RemoteRepository, _ found: FoundCredentials?,
        _ registry: HTTPURL
    ) throws(Failure) -> Entry {
        var fields = scopes.map { ("scope", $0) }
        if let service = challenge.parameters["service"], !service.isEmpty { fields.insert(("service", service), at: 0) }
        let response: HTTPResponse
        if case .identityToken(let token) = found?.credentials {
            // In a form all scopes are one field (the OAuth2 flow of the token authentication specification).
            let scopes = fields.filter { $0.0 == "scope" }.map(\.1).joined(separator: " ")
            fields = fields.filter { $0.0 != "scope" } + (scopes.isEmpty ? [] : [("scope", scopes)])
            fields.insert(("grant_type", "refresh_token"), at: 0)
            fields += [("client_id", "cfsoci"), ("refresh_token", token)]
            response = try session.open(base, for: repository, headers: ["Accept: application/json"], form: Array(Self.query(fields).utf8))
        } else {
            if case .password(let user, _) = found?.credentials { fields.append(("account", user)) }
            guard let url = HTTPURL(base.text + (base.text.contains("?") ? "&" : "?") + Self.query(fields)) else {
                throw Failure(.invalidTokenRealm(url: registry.display, realm: base.display))
            }
            response = try session.open(
                url, for: repository, headers: ["Accept: application/json"], authorization: found?.credentials.basicAuthorization)
        }
        guard (200..<300).contains(response.head.status) else {
            let isRefusal = [400, 401, 403].contains(response.head.status)
            throw session.failure(
                status: response, for: .token(repository: repository.fullName),
                credentials: isRefusal ? credentials(for: repository) : nil)
        }
        let body = try session.body(of: response, limit: Self.responseLimit, .token)
        // Servers send both members for old and new clients, and some leave one of them empty.
        guard let value = try? JSONValue.parse(body),
            let token = [value["token"], value["access_token"]].lazy.compactMap({ $0?.string }).first(where: { !$0.isEmpty }),
            Self.isFieldValue(token)
        else { throw unusableToken(response.url.display) }
        let lifetime = value["expires_in"]?.int64.flatMap { $0 > 0 ? $0 : nil } ?? Self.defaultLifetime
        // Renewed when a tenth of the lifetime remains, at most ten seconds: otherwise a request on its way could arrive with an expired
        // token.
        let usable = Duration.seconds(min(lifetime, 86400 * 365)) - min(.seconds(10), .milliseconds(min(lifetime, 1000) * 100))
        return Entry(authorization: "Bearer " + token, challenge: challenge, registry: registry, renewal: .now + usable)
    }

    private func unusableToken(_ origin: String) -> Failure {
        Failure(.unusableToken(url: origin))
    }

    private static func query(_ fields: [(String, String)]) -> String {
        fields.map { "\($0)=\(percentEncoded($1))" }.joined(separator: "&")
    }

    /// A line break in a token would begin another header field.
    private static func isFieldValue(_ text: String) -> Bool { !text.isEmpty && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f } }
}
