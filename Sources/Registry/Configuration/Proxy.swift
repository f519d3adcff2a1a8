internal import ComposefsCCurl

/// The URL of a proxy, checked. May hold a password: prints without it.
struct ProxyAddress: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private static let schemes: Set<String> = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]

    /// For curl alone.
    let text: String
    private let shown: String

    /// `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT][/]`; HTTP where there is no scheme.
    init?(_ text: String) {
        let whole = text.contains("://") ? text : "http://" + text
        guard !whole.utf8.contains(where: { $0 < 0x21 || $0 == 0x7f }), let url = curl_url() else { return nil }
        defer { curl_url_cleanup(url) }
        guard curl_url_set(url, CURLUPART_URL, whole, UInt32(CURLU_NON_SUPPORT_SCHEME)) == CURLUE_OK else { return nil }
        func part(_ what: CURLUPart) -> String? {
            var value: UnsafeMutablePointer<CChar>?
            guard curl_url_get(url, what, &value, 0) == CURLUE_OK, let value else { return nil }
            defer { curl_free(value) }
            return String(cString: value)
        }
        guard let scheme = part(CURLUPART_SCHEME)?.lowercased(), Self.schemes.contains(scheme), let host = part(CURLUPART_HOST),
            !host.isEmpty
        else { return nil }
        self.text = whole
        shown = printable("\(scheme)://\(host)\(part(CURLUPART_PORT).map { ":" + $0 } ?? "")")
    }

    var description: String { shown }
    var debugDescription: String { shown }
    var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }
}

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
                throw RegistryError(
                    .configuration,
                    "the environment variable \(name) is no URL of a proxy: [SCHEME://]HOST[:PORT] with http, https or socks5")
            }
            return address
        }
        return nil
    }
}
