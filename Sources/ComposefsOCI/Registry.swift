public import ComposefsBytes
public import ComposefsOCIModel
public import ComposefsRegistry
public import ComposefsTransfer

/// Who a program is to the registries it pulls from. Prints without its secret.
public enum RegistryAuth: Sendable, Hashable, CustomStringConvertible, CustomReflectable {
    /// What `login` of the container tools has left: auth files in the usual places, and credential helpers.
    case stored
    /// Nobody: no file is read, no helper asked.
    case anonymous
    /// User and password, for every registry.
    case basic(username: String, password: String)
    /// A refresh token, exchanged for bearer tokens.
    case identityToken(String)
    /// A bearer token for the registry itself.
    case registryToken(String)
    /// An auth file, which has to exist.
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

/// Where a program's images come from: a platform, credentials and options, made once and used for every pull into a store.
///
/// ```swift
/// let registry = Registry(platform: .host, auth: .anonymous, store: store)
/// let image = try await registry.pull("alpine")
/// ```
public struct Registry: Sendable {
    /// Where images are stored.
    public let store: Store
    /// What is taken of an index; `PullOptions.platform` is set to it.
    public var platform: Platform
    /// TLS, timeouts, mirrors; the credentials are those of `auth`.
    public var options: RegistryOptions

    /// - Parameters:
    ///   - platform: this machine's unless another is given.
    ///   - auth: who one is to the registry.
    ///   - store: where images are stored.
    ///   - options: the rest; its credentials are replaced by `auth`.
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

    /// Pulls an image; see `Store.pull`. `PullOptions.policy` says when the registry is asked.
    public func pull(_ reference: String, _ options: PullOptions = PullOptions()) async throws -> PullResult {
        try await store.pull(reference, with(options), registry: self.options)
    }

    /// The same, with its progress; see `Store.startPull`.
    public func startPull(_ reference: String, _ options: PullOptions = PullOptions()) -> RunningPull {
        store.startPull(reference, with(options), registry: self.options)
    }

    /// Pulls the images of all platforms that an index lists; see `Store.pullAllPlatforms`.
    public func pullAllPlatforms(_ reference: String, _ options: PullOptions = PullOptions()) async throws -> [PullResult] {
        try await store.pullAllPlatforms(reference, with(options), registry: self.options)
    }

    /// The image that the store has of a reference, without asking anybody; nil where it has none. See `PullPolicy.never`.
    public func stored(_ reference: String, _ options: PullOptions = PullOptions()) async throws -> PullResult? {
        var options = options
        options.policy = .never
        do {
            return try await pull(reference, options)
        } catch PullError.notPresent {
            return nil
        }
    }
}
