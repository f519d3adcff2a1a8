internal import ComposefsBytes
internal import ComposefsCCurl

/// The URL of a proxy, validated. It may hold a password, which is never printed.
package struct ProxyAddress: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private static let schemes: Set<String> = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]

    /// For libcurl only.
    package let text: String
    private let shown: String

    /// `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT][/]`; the scheme is http if none is given. libcurl parses it, so that what is checked is what
    /// libcurl connects to.
    ///
    /// - Throws: `HTTPError.Reason.initialization` if libcurl cannot be loaded.
    package init?(_ text: String) throws(HTTPError) {
        try CurlLibrary.load()
        let whole = text.contains("://") ? text : "http://" + text
        guard !whole.utf8.contains(where: { $0 < 0x21 || $0 == 0x7f }), let url = ccurl_url() else { return nil }
        defer { ccurl_url_cleanup(url) }
        guard ccurl_url_set(url, CURLUPART_URL, whole, UInt32(CURLU_NON_SUPPORT_SCHEME)) == CURLUE_OK else { return nil }
        func part(_ what: CURLUPart) -> String? {
            var value: UnsafeMutablePointer<CChar>?
            guard ccurl_url_get(url, what, &value, 0) == CURLUE_OK, let value else { return nil }
            defer { ccurl_free(value) }
            return String(cString: value)
        }
        guard let scheme = part(CURLUPART_SCHEME)?.lowercased(), Self.schemes.contains(scheme), let host = part(CURLUPART_HOST),
            !host.isEmpty
        else { return nil }
        self.text = whole
        shown = printable("\(scheme)://\(host)\(part(CURLUPART_PORT).map { ":" + $0 } ?? "")")
    }

    package var description: String { shown }
    package var debugDescription: String { shown }
    package var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }
}
