internal import ComposefsBytes
internal import ComposefsHTTPClient

/// Who we are to a registry. Prints without its secret.
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

    /// The value of an Authorization field with the Basic scheme (RFC 7617); nil where it is none of user and password.
    var basicAuthorization: String? {
        guard case .password(let user, let password) = self else { return nil }
        return "Basic " + Base64.encode(Array("\(user):\(password)".utf8))
    }
}

/// Credentials, and where they were found.
struct FoundCredentials: Sendable {
    var credentials: RegistryCredentials
    var origin: RegistryError.CredentialOrigin
}

/// A repository as the network sees it.
struct RemoteRepository: Hashable, Sendable {
    /// Host and port as references name them, in lower case: `docker.io`, `localhost:5000`, `[::1]:5000`.
    let domain: String
    /// `library/alpine`.
    let name: String
    /// Any certificate, or no TLS at all, is good enough here, where the options say nothing else.
    var isInsecure = false
    /// Instead of the environment's proxies.
    var proxy: ProxyAddress?
    /// There is another place with the same image: not much is waited for this one.
    var isMirror = false
    /// Where only the registry is meant, to log in: the namespace whose credentials are tried.
    var loginName = ""
    /// Whether credentials that were given with the command are for this registry.
    var takesGivenCredentials = true
    /// Whether requests change anything there.
    var isWritten = false
    /// Another repository of the same registry that is read on the way, by its name.
    var alsoRead: String?
    /// The registry that sent us here, by its domain: which authorities it trusts is trusted here too.
    var redirectedFrom: String?

    init(domain: String, name: String) {
        self.domain = domain
        self.name = name
    }

    /// `docker.io/library/alpine`.
    var fullName: String { "\(domain)/\(name)" }

    /// The repository of the registry that a redirect led to, going by the URL; nil where that is none of the API.
    ///
    /// It is a registry with credentials of its own: those that were given with the command, and all that are kept for the first one, are not
    /// for it.
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

    /// Where its API is. Docker Hub is the one registry that is not where its name says.
    var apiHost: String { domain == "docker.io" ? "registry-1.docker.io" : domain }
    /// What tokens are asked for; nothing in particular where only the registry is meant, to log in.
    var scopes: [String] {
        guard !name.isEmpty else { return [] }
        return ["repository:\(name):pull" + (isWritten ? ",push" : "")] + (alsoRead.map { ["repository:\($0):pull"] } ?? [])
    }

    /// Keys of auth files that may hold its credentials, the most specific first: the repository, each parent, the domain.
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

    /// What credential helpers and old auth files call the domain.
    var serverNames: [String] { domain == "docker.io" ? ["https://index.docker.io/v1/", "index.docker.io", "docker.io"] : [domain] }
}
