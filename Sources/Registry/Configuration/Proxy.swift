internal import ComposefsHTTPClient

/// The proxies of the environment: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case; the lower counts first.
struct ProxySettings: Sendable {
    /// Hosts that are reached directly, as curl takes them: names with all below them, addresses, networks, `*`.
    let exceptions: String
    private let environment: Environment

    init(_ environment: Environment) {
        self.environment = environment
        exceptions = environment["no_proxy"] ?? environment["NO_PROXY"] ?? ""
    }

    /// Nil where the URL is reached directly. This machine always is.
    func proxy(for url: HTTPURL) throws(RegistryError) -> ProxyAddress? {
        guard !url.isLoopback else { return nil }
        var names = ["\(url.scheme)_proxy", "\(url.scheme)_proxy".uppercased(), "all_proxy", "ALL_PROXY"]
        // In a CGI program HTTP_PROXY is a header field of whoever asks.
        if environment["REQUEST_METHOD"] != nil { names.removeAll { $0 == "HTTP_PROXY" } }
        for name in names {
            guard let text = environment[name] else { continue }
            guard let address = ProxyAddress(text) else {
                throw RegistryError(.invalidProxyVariable(name))
            }
            return address
        }
        return nil
    }
}
