internal import ComposefsBytes
internal import ComposefsHTTPClient

/// Credentials for a registry. Printing them does not show the secret.
public enum RegistryCredentials: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    case password(user: String, password: String)
    /// A refresh token, exchanged for bearer tokens (the OAuth2 flow of the token authentication specification).
    case identityToken(String)
    /// A bearer token for the registry itself.
    case registryToken(String)

    public var description: String {
        switch self {
        case .password: "user and password (not shown)"
        case .identityToken: "identity token (not shown)"
        case .registryToken: "registry token (not shown)"
        }
    }

    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }

    /// The value of an Authorization field with the Basic scheme (RFC 7617); nil for tokens.
    var basicAuthorization: String? {
        guard case .password(let user, let password) = self else { return nil }
        return "Basic " + Base64.encode(Array("\(user):\(password)".utf8))
    }
}

/// Credentials and their origin.
struct FoundCredentials: Sendable {
    var credentials: RegistryCredentials
    var origin: RegistryError.CredentialOrigin
}

/// A repository at one endpoint, and how it is accessed.
struct RemoteRepository: Hashable, Sendable {
    /// Host and port as references name them, in lower case: `docker.io`, `localhost:5000`, `[::1]:5000`.
    let domain: String
    /// `library/alpine`.
    let name: String
    /// Whether any certificate, or no TLS at all, is accepted, unless `RegistryOptions.tlsVerify` decides.
    var isInsecure = false
    /// Instead of the environment's proxies.
    var proxy: ProxyAddress?
    /// Whether it is a mirror: there are other endpoints, so a few attempts are enough.
    var isMirror = false
    /// The namespace whose credentials are tried, if only the registry is meant: for a login.
    var loginName = ""
    /// Whether `RegistryOptions.credentials` are meant for this registry.
    var takesGivenCredentials = true
    /// Whether it is the destination of a push.
    var isWritten = false
    /// The name of another repository of the same registry that a blob is mounted from.
    var alsoRead: String?
    /// The domain of the registry that redirected here. The authorities that are trusted for it are trusted here too.
    var redirectedFrom: String?

    init(domain: String, name: String) {
        self.domain = domain
        self.name = name
    }

    /// `docker.io/library/alpine`.
    var fullName: String { "\(domain)/\(name)" }

    /// The repository of another registry that a redirect led to, by the URL; nil if the URL does not belong to the API.
    ///
    /// The other registry needs credentials of its own: neither `RegistryOptions.credentials` nor those of the first registry are sent to
    /// it.
    func behindRedirect(to url: HTTPURL) -> RemoteRepository? {
        let parts = url.target.path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 5, parts[0].isEmpty, parts[1] == "v2",
            let end = parts.lastIndex(where: { ["manifests", "blobs", "referrers"].contains($0) }), end > 2, end < parts.count - 1
        else { return nil }
        var other = RemoteRepository(
            domain: url.authority == "registry-1.docker.io" ? "docker.io" : url.authority, name: parts[2..<end].joined(separator: "/"))
        other.isInsecure = isInsecure
        other.proxy = proxy
        other.isMirror = isMirror
        other.isWritten = isWritten
        other.takesGivenCredentials = false
        other.redirectedFrom = redirectedFrom ?? domain
        return other
    }

    /// The host of its API. Docker Hub is the only registry whose API has another host than its name says.
    var apiHost: String { domain == "docker.io" ? "registry-1.docker.io" : domain }
    /// The scopes that a token is requested for; none if only the registry is meant: for a login.
    var scopes: [String] {
        guard !name.isEmpty else { return [] }
        return ["repository:\(name):pull" + (isWritten ? ",push" : "")] + (alsoRead.map { ["repository:\($0):pull"] } ?? [])
    }

    /// Keys of auth files that may hold its credentials, most specific first: the repository, each parent, the domain.
    var credentialKeys: [String] {
        var keys: [String] = []
        let name = name.isEmpty ? loginName : name
        var path = name.isEmpty ? domain : "\(domain)/\(name)"
        while true {
            keys.append(path)
            guard let slash = path.lastIndex(of: "/") else { return keys }
            path = String(path[..<slash])
        }
    }

    /// The names of the domain in credential helpers and old auth files.
    var serverNames: [String] { domain == "docker.io" ? ["https://index.docker.io/v1/", "index.docker.io", "docker.io"] : [domain] }
}
