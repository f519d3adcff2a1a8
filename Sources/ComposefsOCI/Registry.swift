public import ComposefsBytes
public import ComposefsOCIModel
public import ComposefsRegistry
public import ComposefsTransfer
public import ComposefsTransports

/// How a program authenticates to registries. The description contains no secret.
public enum RegistryAuth: Sendable, Hashable, CustomStringConvertible, CustomReflectable {
    /// The credentials that `login` of the container tools has stored: auth files in the default locations, and credential helpers.
    case stored
    /// No credentials: no file is read and no helper is run.
    case anonymous
    /// User and password, for all registries.
    case basic(username: String, password: String)
    /// A refresh token, exchanged for bearer tokens.
    case identityToken(String)
    /// A bearer token that is sent to the registry.
    case registryToken(String)
    /// An auth file, which must exist.
    case file(ByteString)

    public var description: String {
        switch self {
        case .stored: "stored credentials"
        case .anonymous: "anonymous"
        case .basic: "user and password (not shown)"
        case .identityToken: "identity token (not shown)"
        case .registryToken: "registry token (not shown)"
        case .file(let path): "auth file \(path)"
        }
    }

    public var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }

    func apply(to options: inout RegistryOptions) {
        options.credentials = nil
        options.usesStoredCredentials = true
        switch self {
        case .stored: break
        case .anonymous: options.usesStoredCredentials = false
        case .basic(let username, let password): options.credentials = .password(user: username, password: password)
        case .identityToken(let token): options.credentials = .identityToken(token)
        case .registryToken(let token): options.credentials = .registryToken(token)
        case .file(let path): options.authFile = path
        }
    }
}

/// A source of images for a store: platform, credentials and options that all its pulls use.
///
/// ```swift
/// let registry = Registry(platform: .host, auth: .anonymous, store: store)
/// let image = try await registry.pull("alpine")
/// ```
public struct Registry: Sendable {
    /// The store of pulled images.
    public let store: Store
    /// The platform that is selected from an index. It replaces `PullOptions.platform`.
    public var platform: Platform
    /// TLS, timeouts and mirrors, and the credentials from `auth`.
    public var options: RegistryOptions

    /// - Parameters:
    ///   - platform: the platform that is selected from an index; by default this machine's.
    ///   - auth: the authentication.
    ///   - store: the store of pulled images.
    ///   - options: other options. `auth` replaces their credentials.
    public init(platform: Platform = .host, auth: RegistryAuth = .stored, store: Store, options: RegistryOptions = RegistryOptions()) {
        self.store = store
        self.platform = platform
        self.options = options
        auth.apply(to: &self.options)
    }

    private func with(_ options: PullOptions) -> PullOptions {
        var options = options
        options.platform = platform
        return options
    }

    /// Pulls an image; see `Store.pull`. `PullOptions.policy` determines when the registry is asked.
    public func pull(_ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions()) async throws -> PullResult {
        try await store.pull(reference, with(options), registry: self.options)
    }

    /// Starts a pull and returns its progress and result; see `Store.startPull`.
    public func startPull(_ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions()) -> RunningPull {
        store.startPull(reference, with(options), registry: self.options)
    }

    /// Pulls the images for all platforms of an index; see `Store.pullAllPlatforms`.
    public func pullAllPlatforms(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions()
    ) async throws -> [PullResult] {
        try await store.pullAllPlatforms(reference, with(options), registry: self.options)
    }

    /// The stored image of a reference, without a request; nil if the store has none. See `PullPolicy.never`.
    public func stored(_ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions()) async throws -> PullResult? {
        var options = options
        options.policy = .never
        do {
            return try await pull(reference, options)
        } catch PullError.notPresent {
            return nil
        }
    }
}
