internal import ComposefsHTTPClient
public import ComposefsTransports

/// Why something about a registry failed: one line that names host, URL (without its query), status and what to do. Holds no secret.
public struct RegistryError: Error, Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Hashable {
        /// No credentials, or ones that the registry refuses (401).
        case unauthorized
        /// 403.
        case forbidden
        /// 404, 410.
        case notFound
        /// The registry has not got a layer that it need not have, and `RegistryOptions.fetchesForeignLayers` is off.
        case foreignLayer
        /// 429 until the retries were used up.
        case rateLimited
        /// The certificate or the TLS handshake.
        case tls
        /// The name does not resolve, nobody listens, or the connection breaks again and again.
        case connection
        /// Nothing came for the stall timeout, again and again.
        case timeout
        /// 408, 425 or 5xx until the retries were used up, and statuses that mean nothing here.
        case server
        /// An answer that breaks HTTP or the distribution specification.
        case badResponse
        /// Content does not have the digest that was asked for or announced.
        case digestMismatch
        /// A body longer or shorter than its descriptor says.
        case sizeMismatch
        /// More bytes than the limit for what was asked.
        case tooLarge
        /// An auth file or a credential helper cannot be used.
        case credentials
        /// A registries.conf, a directory of certificates or the environment's proxy cannot be used, or leaves open what a short name means.
        case configuration
        /// A registries.conf forbids the registry.
        case blocked
        /// What the caller asked for cannot be put into a request.
        case invalidRequest
        case cancelled
        /// Threads or memory.
        case resources
    }

    /// What the caller can change so that it works. The command's options and the library's have different names for it.
    public enum Remedy: Sendable, Hashable {
        /// To allow transport without TLS (`RegistryOptions.tlsVerify`).
        case allowPlainTransport
        /// To allow plain HTTP where the registry speaks no TLS (`tlsVerify`).
        case allowPlainHTTP
        /// To install the certificate's authority, or to accept any certificate (`tlsVerify`).
        case trustCertificate
        /// To log in, or to name another auth file (`authFile`).
        case logIn
        /// To correct the name of the auth file that was given (`authFile`, REGISTRY_AUTH_FILE).
        case correctAuthFile
        /// To name an auth file that can be written (`authFile`).
        case chooseAuthFile
        /// To correct the directory that was given (`certificateDirectory`).
        case correctCertificateDirectory
        /// To correct the file that was given (`registriesConfiguration`, CONTAINERS_REGISTRIES_CONF).
        case correctRegistriesConfiguration
        /// To raise `PullLimits.manifestBytes`.
        case raiseManifestLimit
        /// To fetch foreign layers from their addresses (`fetchesForeignLayers`).
        case fetchForeignLayers
    }

    public let kind: Kind
    /// One line.
    public let description: String
    /// The HTTP status, where an answer was the reason.
    public let status: Int?
    /// The registry's own code, as `MANIFEST_UNKNOWN`, where it gave one (distribution-spec, error codes).
    public let code: String?
    /// What would help, where that is known.
    public let remedy: Remedy?

    init(_ kind: Kind, _ description: String, status: Int? = nil, code: String? = nil, remedy: Remedy? = nil) {
        self.kind = kind
        self.description = description
        self.status = status
        self.code = code
        self.remedy = remedy
    }
}

extension RegistryError {
    init(_ error: HTTPError) {
        if case .configuration(let own as RegistryError) = error.reason {
            self = own
            return
        }
        let kind: Kind =
            switch error.kind {
            case .connection: .connection
            case .timeout: .timeout
            case .tls: .tls
            case .badResponse: .badResponse
            case .tooLarge: .tooLarge
            case .resources: .resources
            case .cancelled: .cancelled
            case .configuration: .configuration
            }
        let remedy: Remedy? =
            switch error.reason {
            case .downgrade: .allowPlainTransport
            case .handshake: .allowPlainHTTP
            case .untrustedCertificate: .trustCertificate
            default: nil
            }
        self.init(kind, error.description, status: error.status, remedy: remedy)
    }
}

extension RegistryError: PlaceError {
    public var concernsOneThing: Bool { [.unauthorized, .forbidden, .notFound, .server, .badResponse].contains(kind) }
}

/// An error together with whether, and when, another attempt makes sense.
struct Failure: AttemptFailure {
    var error: RegistryError
    var retry = Retry.never
    /// The server does not seem to speak TLS.
    var mayBePlainHTTP = false

    init(_ error: HTTPError) {
        let retry: Retry =
            switch error.retry {
            case .never: .never
            case .unreachable: .unreachable
            case .transient: .transient(after: nil)
            }
        self.init(RegistryError(error), retry: retry, mayBePlainHTTP: error.suggestsPlainHTTP)
    }

    init(_ error: RegistryError, retry: Retry = .never, mayBePlainHTTP: Bool = false) {
        self.error = error
        self.retry = retry
        self.mayBePlainHTTP = mayBePlainHTTP
    }

    var whenCancelled: Failure { Failure(RegistryError(.cancelled, "cancelled; before that: \(error.description)")) }
}
