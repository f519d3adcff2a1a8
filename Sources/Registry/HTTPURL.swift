internal import ComposefsCCurl

/// An absolute http or https URL, parsed by curl so that what we check is what curl will connect to.
struct HTTPURL: Sendable, Equatable {
    /// For the wire. May hold a signed query: print `display` instead.
    let text: String
    /// `http` or `https`.
    let scheme: String
    /// Lower case, IPv6 in brackets.
    let host: String
    let port: UInt16
    private let path: String

    init?(_ text: String) { self.init(base: nil, text) }

    /// `reference` resolved against this URL, as a Location header is (RFC 3986 §5).
    func resolving(_ reference: String) -> HTTPURL? { HTTPURL(base: self.text, reference) }

    private init?(base: String?, _ text: String) {
        guard !text.utf8.contains(where: { $0 < 0x21 || $0 == 0x7f }), let url = curl_url() else { return nil }
        defer { curl_url_cleanup(url) }
        if let base, curl_url_set(url, CURLUPART_URL, base, 0) != CURLUE_OK { return nil }
        guard curl_url_set(url, CURLUPART_URL, text, UInt32(CURLU_DISALLOW_USER)) == CURLUE_OK else { return nil }
        curl_url_set(url, CURLUPART_FRAGMENT, nil, 0)
        func part(_ what: CURLUPart, _ flags: Int32 = 0) -> String? {
            var value: UnsafeMutablePointer<CChar>?
            guard curl_url_get(url, what, &value, UInt32(flags)) == CURLUE_OK, let value else { return nil }
            defer { curl_free(value) }
            return String(cString: value)
        }
        guard let whole = part(CURLUPART_URL), let scheme = part(CURLUPART_SCHEME)?.lowercased(), scheme == "http" || scheme == "https",
            let host = part(CURLUPART_HOST)?.lowercased(), !host.isEmpty,
            let port = part(CURLUPART_PORT, CURLU_DEFAULT_PORT).flatMap({ UInt16($0) })
        else { return nil }
        self.text = whole
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = part(CURLUPART_PATH) ?? "/"
    }

    /// Credentials for one origin are good for no other.
    func hasSameOrigin(as other: HTTPURL) -> Bool { scheme == other.scheme && host == other.host && port == other.port }

    /// Whether it is of the server that is asked for the repository.
    func isOrigin(of repository: RemoteRepository) -> Bool { authority == repository.apiHost || "\(host):\(port)" == repository.apiHost }

    var isDefaultPort: Bool { port == (scheme == "https" ? 443 : 80) }

    /// Path and, after its `?`, query.
    var target: (path: String, query: String?) {
        let rest = text.dropFirst(scheme.count + 3)
        let parts = (rest.firstIndex(of: "/").map { rest[$0...] } ?? "/").split(
            separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        return (String(parts.first ?? "/"), parts.count > 1 ? String(parts[1]) : nil)
    }

    /// Host, and port where it is not the scheme's own.
    var authority: String { isDefaultPort ? host : "\(host):\(port)" }

    /// For messages: no query (it may be signed), no fragment, no user.
    var display: String { printable("\(scheme)://\(authority)\(path)", limit: 240) }

    var isLoopback: Bool { Self.isLoopback(host: host) }

    /// `localhost`, 127.0.0.0/8 and `[::1]`, in lower case.
    static func isLoopback(host: String) -> Bool {
        if host == "localhost" || host == "[::1]" || host == "::1" { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}
