internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsOCIModel

// The texts of all errors of this module.

extension RegistryError: CustomStringConvertible {
    /// One line that says what failed, where, and what to do about it.
    public var description: String {
        switch reason {
        // Requests
        case .http(let error): error.description
        case .status(let response): response.text
        case .unexpectedStatus(let request, let url, let status):
            "\(request): \(url) returned \(status), which does not answer this request"
        case .cancelled(nil): "cancelled"
        case .cancelled(let error?): "cancelled; before that: \(error)"
        case .others(let last, let earlier):
            "\(last); before that, " + earlier.map { "\($0.name): \($0.error)" }.joined(separator: "; ")
        case .invalidURL(let text): "\(printable(text)) cannot be put into a URL"
        // Authentication
        case .authenticationRequired(let host, let credentials): "\(host) requires a user and password: \(credentials)"
        case .authorizationRejected(let request, let url): "\(request): \(url) rejects every authorization"
        case .unsupportedChallenge(let url, let schemes):
            "\(url) returned 401 without a supported challenge "
                + "(\(schemes.isEmpty ? "none" : schemes.map { printable($0, limit: 20) }.joined(separator: ", ")))"
        case .invalidTokenRealm(let url, let realm): "\(url): the token realm \(printable(realm)) is not an http or https URL"
        case .tokenWithoutTLS(let host, let realm): "\(host) requests tokens from \(realm) without TLS"
        case .unusableToken(let url): "\(url): the response contains no usable token"
        // Documents
        case .bodyTooLarge(let document, let url, let size?, let limit):
            "\(url): the \(document.text) has \(size) bytes; the limit is \(limit)"
        case .bodyTooLarge(let document, let url, nil, let limit): "\(url): the \(document.text) has more than \(limit) bytes, the limit"
        case .manifestTooLarge(let name, let size, let limit): "manifest \(name): its descriptor says \(size) bytes; the limit is \(limit)"
        case .manifestSize(let name, let size, let expected): "manifest \(name): it has \(size) bytes, but its descriptor says \(expected)"
        case .webPage(let request):
            "\(request): the response is a web page (text/html), not a manifest; a proxy or a login page may be in front of the registry"
        case .digestMismatch(.requested, let url, let actual, let expected):
            "\(url): the manifest's digest is \(actual), but \(expected) was requested"
        case .digestMismatch(.announced, let url, let actual, let expected):
            "\(url): the manifest's digest is \(actual), but Docker-Content-Digest says \(expected)"
        case .digestMismatch(.pushed, let url, let actual, let expected): "\(url): the registry stored \(actual), but \(expected) was sent"
        case .invalidContentDigest(let url, let text): "\(url): the Docker-Content-Digest \(printable(text, limit: 80)) is not a digest"
        case .tooManyReferrers(let request, let limit, let pages): "\(request): more than \(limit) referrers or \(pages) pages"
        case .invalidReferrers(let url, let error): "\(url): \(printable("\(error)"))"
        case .referrersTagTaken(let tag, let error): "the tag \(tag) is not a list of referrers and is not replaced: \(error)"
        case .foreignLink(let url, let link): "\(url): the Link \(printable(link)) leads out of the repository"
        // Blobs and uploads
        case .blobSize(let url, .announced(let size), let expected):
            "\(url): the blob has \(size) bytes, but its descriptor says \(expected)"
        case .blobSize(let url, .longer, let expected): "\(url): the blob is longer than the \(expected) bytes of its descriptor"
        case .blobSize(let url, .ends(let size), let expected): "\(url): the blob ends after \(size) of \(expected) bytes"
        case .storedSize(let url, let size, let expected): "\(url): the registry has \(size) bytes, but the blob has \(expected)"
        case .connectionEnded(let url, let received, let size): "\(url): the connection ended after \(received) of \(size) bytes"
        case .tooSlow(let url, let rate, let window, let minimum):
            "\(url): the server sent \(rate) bytes per second in \(window.text); the minimum is \(minimum)"
        case .invalidContentRange(let url, let text, let first, let last):
            "\(url): bytes \(first)-\(last) were requested, but Content-Range is \(printable(text, limit: 60))"
        case .foreignLayer(let error, let descriptor): "\(error); \(descriptor.foreignNote)"
        case .foreignLayerUnreachable(let errors):
            "cannot fetch the foreign layer: " + errors.map(\.description).joined(separator: "; ")
        case .invalidForeignURL(let text): "\(printable(hidingSecrets(text), limit: 240)) is not an http or https URL"
        case .uploadWithoutTLS(let url, let location): "\(url) requests the upload to \(location) without TLS"
        case .missingLocation(let url, let status): "\(url): status \(status) without a usable Location"
        case .invalidUploadLocation(let url): "\(url): the digest cannot be added to the Location of the upload"
        case .uploadRedirected(let request, let location): "\(request): redirected to \(location)"
        // Credentials
        case .invalidAuthFile(let path, .syntax(let error)): "auth file \(path): \(error)"
        case .invalidAuthFile(let path, .notObject(let kind)): "auth file \(path) contains \(kind), not a JSON object"
        case .invalidAuthFile(let path, .invalidEntry(let key)):
            "auth file \(path): the entry \(printable(key)) is not base64 of user:password"
        case .credentialHelper(let program, let fault):
            switch fault {
            case .invalidName: "\(printable(program)) is not a valid name of a credential helper"
            case .missing: "the credential helper \(program) is not in PATH"
            case .failed(let action, let server, let status): "\(program) \(action) failed for \(server) with status \(status)"
            case .invalidOutput(let server): "\(program) get returned no JSON object with Username and Secret for \(server)"
            case .inputTooLarge(let size, let limit): "\(program): the input of \(size) bytes is too large; the limit is \(limit)"
            case .system(let operation, let error): "\(program): \(operation): \(error)"
            case .noAnswer(let time): "\(program) did not finish in \(time.text), or its output is too large"
            }
        case .invalidLoginTarget(let text):
            "\(printable(hidingSecrets(text))) is not a registry; write HOST[:PORT], and after it /NAMESPACE if needed"
        case .invalidLogin: "a user must not contain a colon or control characters, and a password must not contain NUL"
        // Configuration
        case .file(let role, let path, .missing): "\(role.text)\(path) does not exist"
        case .file(let role, let path, .unreadable(let error)): "\(role.text)\(path): \(error)"
        case .file(let role, let path, .unwritable(let error)): "\(role.text)\(path): \(error)"
        case .registriesConfiguration(let path, let line, let fault): "\(path)\(line.map { ":\($0)" } ?? ""): \(fault.text)"
        case .storageConfiguration(let path, let line, .syntax(let message)): "\(path):\(line): \(message)"
        case .storageConfiguration(let path, let line, .value(let key, let expected)): "\(path):\(line): \(key) must be \(expected)"
        case .storageDriver(let driver):
            "storage.conf or STORAGE_DRIVER selects the storage driver \(printable(driver)), but only overlay is supported; name a storage "
                + "with the overlay driver as containers-storage:[overlay@DIR]NAME"
        case .storageFiles(let error): "\(error)"
        case .tooManyDropIns(let count, let limit): "there are \(count) drop-ins of registries.conf; the limit is \(limit)"
        case .certificateWithoutKey(let path, let key): "\(path) has no key: \(key) is missing in the same directory"
        case .keyWithoutCertificate(let path): "\(path) has no certificate: NAME.key belongs to NAME.cert in the same directory"
        case .invalidProxyVariable(let name):
            "the environment variable \(name) is not the URL of a proxy: [SCHEME://]HOST[:PORT] with http, https or socks5"
        case .noEndpoint: "there is no registry to ask"
        case .noSearchRegistries(let name, let origin):
            "\(name) has no alias, and \(origin ?? "the configuration") names no registries to search; write HOST/\(name)"
        case .ambiguousShortName(let name, let candidates):
            "\(name) may be \(candidates.joined(separator: " or ")), and short-name-mode is enforcing; write the full name"
        case .noCandidateChosen(let name): "no registry was chosen for \(name)"
        case .invalidCandidate(let error): "\(error)"
        case .blocked(let reference, let origin, let prefix): "\(reference) is blocked: \(origin) blocks \(printable(prefix))"
        case .blockedHost(let host, let origin): "\(host) is blocked by \(origin)"
        case .invalidLocation(let origin, let rewritten, let reference):
            "\(origin) turns \(reference) into \(printable(rewritten)), which is not a reference to an image in a registry"
        }
    }
}

extension RegistryError.Request {
    public var description: String {
        switch self {
        case .manifest(let name): "manifest \(name)"
        case .blob(let repository): "blob of \(repository)"
        case .referrers(let name): "referrers of \(name)"
        case .upload(let repository): "upload to \(repository)"
        case .token(let repository): "token for \(repository)"
        case .login(let target): "log in to \(target)"
        case .foreignLayer(let digest): "foreign layer \(digest)"
        }
    }
}

extension RegistryError.Credentials {
    public var description: String {
        switch self {
        case .none(let registry): "no credentials for \(registry) were found"
        case .rejected(let origin): "\(origin) are not accepted"
        }
    }
}

extension RegistryError.CredentialOrigin {
    /// `the credentials in FILE`.
    public var description: String {
        switch self {
        case .options: "the given credentials"
        case .authFile(let path): "the credentials in \(path)"
        case .helper(let program, let configuration): "the credentials of \(program) (named by \(configuration ?? "registries.conf"))"
        }
    }
}

extension RegistryError.Response {
    private static let phrases: [Int: String] = [
        400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
        407: "Proxy Authentication Required", 408: "Request Timeout", 410: "Gone", 416: "Range Not Satisfiable", 425: "Too Early",
        429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    ]

    fileprivate var text: String {
        var text = "\(request): \(url) returned \(status)"
        if let phrase = Self.phrases[status] { text += " " + phrase }
        let own = [code, message].compactMap { $0 }
        if !own.isEmpty { text += " (\(own.joined(separator: ": ")))" }
        switch status {
        case 403: text += "; the repository may be private, or the account may have no access to it: log in with another account"
        case 429: text += "; a logged-in account may have a higher limit"
        default: break
        }
        if let (requested, limit) = retryAfter { text += "; it asks to wait \(requested.text), more than the limit of \(limit.text)" }
        if let credentials { text += "; \(credentials)" }
        return text
    }
}

extension RegistryError.Document {
    fileprivate var text: String {
        switch self {
        case .manifest: "manifest"
        case .referrers: "list of referrers"
        case .token: "token"
        }
    }
}

extension RegistryError.FileRole {
    /// With the blank that follows.
    fileprivate var text: String {
        switch self {
        case .authFile: "auth file "
        case .registriesConfiguration, .recordedAliases: ""
        case .certificate: "certificate file "
        case .certificateDirectory: "certificate directory "
        }
    }
}

extension RegistryError.RegistriesFault {
    fileprivate var text: String {
        switch self {
        case .syntax(let message): message
        case .value(let key, let expected): "\(printable(key)) must be \(expected)"
        case .registryWithoutLocation: "a [[registry]] needs a prefix or a location"
        case .prefixWithoutLocation: "a [[registry]] without a location needs a prefix that begins with *."
        case .mirrorWithoutLocation: "a mirror needs a location"
        case .invalidWildcard(let prefix): "\(printable(prefix)): *. is allowed only in front of a domain, as in *.example.com"
        case .contradiction(let prefix):
            "a second [[registry]] for \(printable(prefix)) contradicts the first about insecure or blocked"
        case .exclusive(let one, let other): "\(one) and \(other) exclude each other"
        case .invalidProxy: "proxy is not the URL of a proxy: SCHEME://HOST[:PORT] with http, https, socks5 or socks5h"
        case .invalidAlias(let name): "the alias \(printable(name)) is not a short name without tag and digest"
        case .invalidAliasTarget(let name): "the target of the alias \(printable(name)) is not HOST/NAME without tag and digest"
        case .emptyRegistry: "a registry has an empty name"
        case .registryWithScheme(let text): "\(printable(text)): write registries without http:// or https://"
        case .invalidRegistry(let text): "\(printable(text)) is not HOST[:PORT][/NAMESPACE]"
        }
    }
}

extension Duration {
    /// `60 s`, `0.5 s`.
    fileprivate var text: String {
        let nanoseconds = clampedNanoseconds
        return nanoseconds % 1_000_000_000 == 0 ? "\(nanoseconds / 1_000_000_000) s" : "\(Double(nanoseconds) / 1e9) s"
    }
}
