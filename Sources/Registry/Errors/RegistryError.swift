internal import ComposefsHTTPClient
internal import ComposefsOCIModel
public import ComposefsTransports

/// Why something about a registry failed. Holds no secret: URLs have neither query nor user.
public struct RegistryError: Error, Sendable {
    /// What failed, with its values.
    public let reason: Reason

    init(_ reason: Reason) { self.reason = reason }

    /// A coarse class of reasons, for programs that decide what to do next.
    public enum Kind: Sendable, Hashable {
        /// No credentials, or credentials that the registry rejects (401).
        case unauthorized
        /// 403.
        case forbidden
        /// 404, 410.
        case notFound
        /// The registry does not have a foreign layer, and `RegistryOptions.fetchesForeignLayers` is off.
        case foreignLayer
        /// 429, and no retries are left.
        case rateLimited
        /// The certificate or the TLS handshake.
        case tls
        /// The name does not resolve, the connection is refused, or it broke too often.
        case connection
        /// Too few bytes in the stall timeout, too often, or too slow.
        case timeout
        /// 408, 425 or 5xx and no retries are left, and statuses without a meaning here.
        case server
        /// A response that breaks HTTP or the distribution specification.
        case badResponse
        /// Content does not have the digest that was requested or announced.
        case digestMismatch
        /// A body longer or shorter than its descriptor says.
        case sizeMismatch
        /// More bytes than the limit.
        case tooLarge
        /// An auth file or a credential helper cannot be used.
        case credentials
        /// A registries.conf, a certificate directory, a storage.conf or the environment's proxy cannot be used, or a short name is ambiguous.
        case configuration
        /// A registries.conf blocks the registry.
        case blocked
        /// The request cannot be expressed as a URL.
        case invalidRequest
        case cancelled
        /// Threads or memory.
        case resources
    }

    /// What the caller can change so that it works. The command's options and the library's have different names for it.
    public enum Remedy: Sendable, Hashable {
        /// Allow connections without TLS (`RegistryOptions.tlsVerify`).
        case allowPlainTransport
        /// Allow plain HTTP if the registry speaks no TLS (`tlsVerify`).
        case allowPlainHTTP
        /// Install the certificate's authority, or accept any certificate (`tlsVerify`).
        case trustCertificate
        /// Log in, or name another auth file (`authFile`).
        case logIn
        /// Correct the given name of the auth file (`authFile`, REGISTRY_AUTH_FILE).
        case correctAuthFile
        /// Name an auth file that can be written (`authFile`).
        case chooseAuthFile
        /// Correct the given directory (`certificateDirectory`).
        case correctCertificateDirectory
        /// Correct the given file (`registriesConfiguration`, CONTAINERS_REGISTRIES_CONF).
        case correctRegistriesConfiguration
        /// Raise `PullLimits.manifestBytes`.
        case raiseManifestLimit
        /// Fetch foreign layers from the URLs in their descriptors (`fetchesForeignLayers`).
        case fetchForeignLayers
    }

    public var kind: Kind {
        switch reason {
        case .http(let error): Kind(error.kind)
        case .status(let response): response.kind
        case .authenticationRequired, .authorizationRejected: .unauthorized
        case .cancelled, .noCandidateChosen: .cancelled
        case .others(let last, _): last.kind

        case .unexpectedStatus, .unsupportedChallenge, .invalidTokenRealm, .unusableToken, .missingLocation, .invalidUploadLocation,
            .uploadRedirected, .invalidContentDigest, .invalidContentRange, .webPage, .invalidReferrers, .referrersTagTaken, .foreignLink:
            .badResponse
        case .tokenWithoutTLS, .uploadWithoutTLS: .tls
        case .digestMismatch: .digestMismatch
        case .blobSize, .storedSize, .manifestSize: .sizeMismatch
        case .connectionEnded: .connection
        case .tooSlow: .timeout
        case .bodyTooLarge, .manifestTooLarge, .tooManyReferrers: .tooLarge
        case .invalidURL, .invalidLoginTarget: .invalidRequest
        case .foreignLayer: .foreignLayer
        case .foreignLayerUnreachable, .invalidForeignURL: .notFound

        case .file(.authFile, _, _), .invalidAuthFile, .credentialHelper, .invalidLogin: .credentials
        case .file, .registriesConfiguration, .storageConfiguration, .storageDriver, .storageFiles, .tooManyDropIns, .certificateWithoutKey,
            .keyWithoutCertificate, .invalidProxyVariable, .noEndpoint, .noSearchRegistries, .ambiguousShortName, .invalidCandidate,
            .invalidLocation:
            .configuration
        case .blocked, .blockedHost: .blocked
        }
    }

    /// The HTTP status, if a response is the reason.
    public var status: Int? {
        switch reason {
        case .http(let error): error.status
        case .status(let response): response.status
        case .authenticationRequired, .authorizationRejected, .unsupportedChallenge, .invalidTokenRealm, .tokenWithoutTLS: 401
        case .unexpectedStatus(_, _, let status): status
        case .others(let last, _), .foreignLayer(let last, _): last.status
        default: nil
        }
    }

    /// The registry's own code, for example `MANIFEST_UNKNOWN`, if it sent one (distribution-spec, error codes).
    public var code: String? {
        switch reason {
        case .status(let response): response.code
        case .others(let last, _), .foreignLayer(let last, _): last.code
        default: nil
        }
    }

    /// What would help, if that is known.
    public var remedy: Remedy? {
        switch reason {
        case .http(let error):
            switch error.reason {
            case .downgrade: .allowPlainTransport
            case .handshake: .allowPlainHTTP
            case .untrustedCertificate: .trustCertificate
            default: nil
            }
        case .status(let response): response.remedy
        case .others(let last, _): last.remedy
        case .tokenWithoutTLS, .uploadWithoutTLS: .allowPlainTransport
        case .bodyTooLarge(.manifest, _, _, _), .manifestTooLarge: .raiseManifestLimit
        case .foreignLayer(_, let descriptor): descriptor.urls.isEmpty ? nil : .fetchForeignLayers
        case .file(.authFile, _, .missing): .correctAuthFile
        case .file(.authFile, _, .unwritable): .chooseAuthFile
        case .file(.certificateDirectory, _, .missing): .correctCertificateDirectory
        case .file(.registriesConfiguration, _, .missing): .correctRegistriesConfiguration
        default: nil
        }
    }
}

extension RegistryError: TransportError {
    public var concernsOneItem: Bool { [.unauthorized, .forbidden, .notFound, .server, .badResponse].contains(kind) }
}

extension RegistryError {
    /// An error of the connection policy is a registry error already.
    init(_ error: HTTPError) {
        if case .configuration(let own as RegistryError) = error.reason { self = own } else { self.init(.http(error)) }
    }

    /// Whether another endpoint may do better.
    var concernsOneEndpoint: Bool {
        switch kind {
        case .cancelled, .resources, .configuration, .credentials, .invalidRequest: false
        default: true
        }
    }
}

extension RegistryError.Kind {
    fileprivate init(_ kind: HTTPError.Kind) {
        self =
            switch kind {
            case .connection: .connection
            case .timeout: .timeout
            case .tls: .tls
            case .badResponse: .badResponse
            case .tooLarge: .tooLarge
            case .resources: .resources
            case .cancelled: .cancelled
            case .configuration: .configuration
            }
    }
}

/// An error together with whether, and when, another attempt makes sense.
struct Failure: AttemptFailure {
    var error: RegistryError
    var retry = Retry.never
    /// Whether the server seems to speak no TLS.
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

    init(_ reason: RegistryError.Reason, retry: Retry = .never) { self.init(RegistryError(reason), retry: retry) }

    init(_ error: RegistryError, retry: Retry = .never, mayBePlainHTTP: Bool = false) {
        self.error = error
        self.retry = retry
        self.mayBePlainHTTP = mayBePlainHTTP
    }

    /// See `RegistryError.Response.wantsTLS`.
    var wantsTLS: Bool { if case .status(let response) = error.reason { response.wantsTLS } else { false } }

    var whenCancelled: Failure { Failure(.cancelled(after: error)) }
}
