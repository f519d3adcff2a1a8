internal import ComposefsBytes
internal import ComposefsCCurl

/// An absolute http or https URL. libcurl parses it, so that what is checked is what libcurl connects to: without libcurl, and so without a
/// session, there are no URLs.
package struct HTTPURL: Sendable, Equatable {
    /// For the request. May hold a signed query: print `display` instead.
    package let text: String
    /// `http` or `https`.
    package let scheme: String
    /// Lower case, IPv6 in brackets.
    package let host: String
    package let port: UInt16
    private let path: String

    package init?(_ text: String) { self.init(base: nil, text) }

    /// `reference` resolved against this URL, as a Location header is (RFC 3986 §5).
    package func resolving(_ reference: String) -> HTTPURL? { HTTPURL(base: self.text, reference) }

    private init?(base: String?, _ text: String) {
        guard !text.utf8.contains(where: { $0 < 0x21 || $0 == 0x7f }), let url = ccurl_url() else { return nil }
        defer { ccurl_url_cleanup(url) }
        if let base, ccurl_url_set(url, CURLUPART_URL, base, 0) != CURLUE_OK { return nil }
        guard ccurl_url_set(url, CURLUPART_URL, text, UInt32(CURLU_DISALLOW_USER)) == CURLUE_OK else { return nil }
        ccurl_url_set(url, CURLUPART_FRAGMENT, nil, 0)
        func part(_ what: CURLUPart, _ flags: Int32 = 0) -> String? {
            var value: UnsafeMutablePointer<CChar>?
            guard ccurl_url_get(url, what, &value, UInt32(flags)) == CURLUE_OK, let value else { return nil }
            defer { ccurl_free(value) }
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

    /// Credentials for one origin must not be sent to another.
    package func hasSameOrigin(as other: HTTPURL) -> Bool { scheme == other.scheme && host == other.host && port == other.port }

    package var isDefaultPort: Bool { port == (scheme == "https" ? 443 : 80) }

    /// Path and, after its `?`, query.
    package var target: (path: String, query: String?) {
        let rest = text.dropFirst(scheme.count + 3)
        let parts = (rest.firstIndex(of: "/").map { rest[$0...] } ?? "/").split(
            separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        return (String(parts.first ?? "/"), parts.count > 1 ? String(parts[1]) : nil)
    }

    /// Host, and port unless it is the scheme's default.
    package var authority: String { isDefaultPort ? host : "\(host):\(port)" }

    /// For messages: without query (it may be signed), fragment and user.
    package var display: String { printable("\(scheme)://\(authority)\(path)", limit: 240) }

    package var isLoopback: Bool { Self.isLoopback(host: host) }

    /// Whether `host`, in lower case, is `localhost`, in 127.0.0.0/8, or `[::1]`.
    package static func isLoopback(host: String) -> Bool {
        if host == "localhost" || host == "[::1]" || host == "::1" { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}
