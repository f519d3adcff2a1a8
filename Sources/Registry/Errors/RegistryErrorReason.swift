public import ComposefsBytes
public import ComposefsHTTPClient
public import ComposefsHashing
public import ComposefsLinuxSystem
public import ComposefsOCIModel

extension RegistryError {
    /// What failed, with its values. URLs are without query and user; sizes are in bytes.
    public indirect enum Reason: Sendable {
        // MARK: Requests

        /// The request failed without a response that could be used.
        case http(HTTPError)
        /// The response has an error status.
        case status(Response)
        /// A status that means nothing as the response to this request.
        case unexpectedStatus(Request, url: String, status: Int)
        case cancelled(after: RegistryError?)
        /// The last endpoint's or candidate's error, and those of the ones tried before.
        case others(RegistryError, earlier: [(name: String, error: RegistryError)])
        case invalidURL(String)

        // MARK: Authentication

        /// The registry asks for a user and password (401).
        case authenticationRequired(host: String, Credentials)
        /// The registry rejects each authorization that it gives out (401).
        case authorizationRejected(Request, url: String)
        /// A 401 without a challenge of a known scheme.
        case unsupportedChallenge(url: String, schemes: [String])
        /// The realm of a Bearer challenge is no URL that tokens can be requested from.
        case invalidTokenRealm(url: String, realm: String)
        case tokenWithoutTLS(host: String, realm: String)
        case unusableToken(url: String)

        // MARK: Documents

        case bodyTooLarge(Document, url: String, size: UInt64?, limit: Int)
        /// Going by its descriptor.
        case manifestTooLarge(String, size: UInt64, limit: Int)
        case manifestSize(String, size: Int, expected: Int)
        /// The response is a web page instead of a manifest.
        case webPage(Request)
        case digestMismatch(DigestSource, url: String, actual: ContentDigest, expected: ContentDigest)
        /// The Docker-Content-Digest field is no digest.
        case invalidContentDigest(url: String, String)
        case tooManyReferrers(Request, limit: Int, pages: Int)
        case invalidReferrers(url: String, any Error)
        /// The tag of the referrers tag schema names another document. It is not replaced.
        case referrersTagTaken(tag: String, RegistryError)
        /// A Link field leads out of the repository.
        case foreignLink(url: String, link: String)

        // MARK: Blobs

        case blobSize(url: String, SizeFault, expected: UInt64)
        /// The registry has the blob with another size.
        case storedSize(url: String, size: UInt64, expected: UInt64)
        case connectionEnded(url: String, received: UInt64, size: UInt64)
        /// The server sent `rate` bytes a second in `window`.
        case tooSlow(url: String, rate: UInt64, window: Duration, minimum: UInt64)
        /// The Content-Range field does not fit the bytes that were requested.
        case invalidContentRange(url: String, String, first: UInt64, last: UInt64)
        /// The registry does not have a foreign layer.
        case foreignLayer(RegistryError, Descriptor)
        /// None of the URLs of a foreign layer has it.
        case foreignLayerUnreachable([RegistryError])
        case invalidForeignURL(String)

        // MARK: Uploads

        case uploadWithoutTLS(url: String, location: String)
        case missingLocation(url: String, status: Int)
        /// The digest cannot be added to the Location of the upload.
        case invalidUploadLocation(url: String)
        case uploadRedirected(Request, location: String)

        // MARK: Credentials

        case invalidAuthFile(ByteString, AuthFileFault)
        case credentialHelper(program: String, HelperFault)
        case invalidLoginTarget(String)
        /// A user or password that cannot be stored.
        case invalidLogin

        // MARK: Configuration

        case file(FileRole, ByteString, FileFault)
        /// `line` counts from 1; nil if the fault has no line.
        case registriesConfiguration(ByteString, line: Int?, RegistriesFault)
        case storageConfiguration(ByteString, line: Int, StorageFault)
        /// The configuration of containers-storage names another driver than overlay.
        case storageDriver(String)
        case storageFiles(SystemError)
        case tooManyDropIns(Int, limit: Int)
        case certificateWithoutKey(ByteString, key: ByteString)
        case keyWithoutCertificate(ByteString)
        /// An environment variable is no URL of a proxy.
        case invalidProxyVariable(String)
        case noEndpoint
        /// A short name without an alias, and no registries to search.
        case noSearchRegistries(name: String, origin: ByteString?)
        case ambiguousShortName(String, candidates: [String])
        case noCandidateChosen(name: String)
        case invalidCandidate(any Error)
        /// `origin` is `FILE:LINE`.
        case blocked(reference: String, origin: String, prefix: String)
        case blockedHost(String, origin: String)
        /// An entry's location turns the reference into something else than a reference.
        case invalidLocation(origin: String, rewritten: String, reference: String)
    }

    /// What a request was for.
    public enum Request: Sendable, Hashable, CustomStringConvertible {
        /// The name with tag or digest.
        case manifest(String)
        case blob(repository: String)
        case referrers(of: String)
        case upload(repository: String)
        case token(repository: String)
        case login(String)
        case foreignLayer(ContentDigest)
    }

    /// A response with an error status.
    public struct Response: Sendable {
        public var request: Request
        public var url: String
        public var status: Int
        /// The registry's own code and message, if it sent them.
        public var code: String?
        public var message: String?
        /// What the request was authenticated with, if that may be the reason.
        public var credentials: Credentials?
        /// The server's Retry-After, if it is longer than `RetryPolicy.maximumRetryAfter`.
        public var retryAfter: (requested: Duration, limit: Duration)?
        /// Whether a server that speaks TLS answers a request without it: net/http of Go, nginx and httpd do so with a 400 whose text names HTTPS.
        var wantsTLS = false
    }

    /// The credentials for a registry.
    public enum Credentials: Sendable, Hashable, CustomStringConvertible {
        /// None were found.
        case none(registry: String)
        /// They are not accepted.
        case rejected(CredentialOrigin)
    }

    public enum CredentialOrigin: Sendable, Hashable, CustomStringConvertible {
        /// `RegistryOptions.credentials`.
        case options
        case authFile(ByteString)
        /// `configuration` is the file that names the helper; nil is registries.conf.
        case helper(String, configuration: ByteString?)
    }

    public enum Document: Sendable, Hashable {
        case manifest, referrers, token
    }

    /// Why content was expected to have a digest.
    public enum DigestSource: Sendable, Hashable {
        case requested
        /// By the Docker-Content-Digest field.
        case announced
        /// What was pushed has this digest.
        case pushed
    }

    /// How the size of a blob differs from its descriptor.
    public enum SizeFault: Sendable, Hashable {
        case announced(UInt64)
        case longer
        case ends(after: UInt64)
    }

    public enum FileRole: Sendable, Hashable {
        case authFile, registriesConfiguration, recordedAliases, certificate, certificateDirectory
    }

    public enum FileFault: Sendable, Hashable {
        case missing
        case unreadable(Errno)
        case unwritable(SystemError)
    }

    public enum AuthFileFault: Sendable {
        case syntax(any Error)
        /// The document is JSON of another kind than an object.
        case notObject(String)
        /// The entry is no base64 of user:password.
        case invalidEntry(String)
    }

    public enum HelperFault: Sendable, Hashable {
        case invalidName
        /// Not in `PATH`.
        case missing
        case failed(action: String, server: String, status: Int32)
        /// The output is no JSON object with Username and Secret.
        case invalidOutput(server: String)
        case inputTooLarge(size: Int, limit: Int)
        case system(operation: String, Errno)
        /// No complete output in time, or too much of it.
        case noAnswer(Duration)
    }

    /// What is wrong in a file in the format of containers-registries.conf(5).
    public enum RegistriesFault: Sendable, Hashable {
        /// The TOML parser's message.
        case syntax(String)
        /// The value of `key` has another type or another value than `expected` says.
        case value(key: String, expected: String)
        /// A [[registry]] without prefix and location.
        case registryWithoutLocation
        /// A [[registry]] without location whose prefix has no wildcard.
        case prefixWithoutLocation
        case mirrorWithoutLocation
        case invalidWildcard(prefix: String)
        /// Two entries for the same prefix disagree about insecure or blocked.
        case contradiction(prefix: String)
        case exclusive(String, String)
        case invalidProxy
        case invalidAlias(String)
        case invalidAliasTarget(String)
        case emptyRegistry
        case registryWithScheme(String)
        case invalidRegistry(String)
    }

    /// What is wrong in a file in the format of containers-storage.conf(5).
    public enum StorageFault: Sendable, Hashable {
        case syntax(String)
        case value(key: String, expected: String)
    }
}

extension RegistryError.Response {
    var kind: RegistryError.Kind {
        // A token server says so in different ways.
        if case .token = request, credentials != nil { return .unauthorized }
        switch status {
        case 401: return .unauthorized
        case 403: return .forbidden
        case 404, 410: return .notFound
        case 429: return .rateLimited
        default: return .server
        }
    }

    var remedy: RegistryError.Remedy? {
        guard status == 401, credentials != nil else { return nil }
        if case .token = request { return nil }
        return .logIn
    }
}
