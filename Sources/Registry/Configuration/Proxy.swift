internal import ComposefsHTTPClient

/// The proxies of the environment: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case. Lower case takes
/// precedence.
struct ProxySettings: Sendable {
    /// Hosts that are reached without a proxy, in the form of `CURLOPT_NOPROXY`: names including all subdomains, addresses, networks, `*`.
    let exceptions: String
    private let environment: Environment

    init(_ environment: Environment) {
        self.environment = environment
        exceptions = environment["no_proxy"] ?? environment["NO_PROXY"] ?? ""
    }

    /// Nil if the URL is reached without a proxy. This machine always is.
    func proxy(for url: HTTPURL) throws(RegistryError) -> ProxyAddress? {
        guard !url.isLoopback else { return nil }
        var names = ["\(url.scheme)_proxy", "\(url.scheme)_proxy".uppercased(), "all_proxy", "ALL_PROXY"]
        // In a CGI program HTTP_PROXY is a header field of the request.
        if environment["REQUEST_METHOD"] != nil { names.removeAll { $0 == "HTTP_PROXY" } }
        for name in names {
            guard let text = environment[name] else { continue }
            guard let address = try proxyAddress(text) else {
                throw RegistryError(.invalidProxyVariable(name))
            }
            return address
        }
        return nil
    }
}

/// The address of a proxy; nil if the text is none.
func proxyAddress(_ text: String) throws(RegistryError) -> ProxyAddress? {
    do { return try ProxyAddress(text) } catch { throw RegistryError(error) }
}
