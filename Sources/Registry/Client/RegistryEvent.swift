internal import ComposefsHTTPClient

/// What a client did, for programs that log it; see `RegistryOptions.observe`.
public enum RegistryEvent: Sendable {
    /// An image is taken from this endpoint, or sent to it.
    ///
    /// - Parameters:
    ///   - name: host and repository: `mirror.example.org/library/alpine`.
    ///   - reference: the image's full reference.
    case endpoint(name: String, isMirror: Bool, reference: String)
    /// How a registry's question for credentials is answered: with those of `origin`, or without any if it is nil.
    case credentials(registry: String, origin: RegistryError.CredentialOrigin?)
    /// One request and the beginning of its response. Each redirect is a request of its own, and so is each request for a token.
    ///
    /// - Parameters:
    ///   - url: without query, which may be signed, and without user.
    ///   - status: nil if there was no response.
    ///   - duration: until the response's header fields were complete, or the request failed.
    case request(method: String, url: String, status: Int?, duration: Duration)
}

extension RegistryEvent: CustomStringConvertible {
    /// One line without control characters and secrets.
    public var description: String {
        switch self {
        case .endpoint(let name, true, let reference): "\(reference): uses the mirror \(name)"
        case .endpoint(let name, false, let reference): "\(reference): uses the registry, \(name)"
        case .credentials(let registry, let origin?): "\(registry): uses \(origin)"
        case .credentials(let registry, nil): "\(registry): uses no credentials"
        case .request(let method, let url, let status, let duration):
            "\(method) \(url): \(status.map { "status \($0)" } ?? "no response") after \(Int(duration / .milliseconds(1))) ms"
        }
    }
}

extension RegistryEvent {
    init(_ exchange: HTTPExchange) {
        self = .request(method: exchange.method, url: exchange.url.display, status: exchange.status, duration: exchange.duration)
    }
}
