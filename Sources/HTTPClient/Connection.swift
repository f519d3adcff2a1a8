/// Decides how the hosts that one request leads to are reached: its URL's host, and those it is redirected to.
package protocol ConnectionPolicy: Sendable {
    /// - Throws: any error; the request fails with `HTTPError.Reason.configuration`, which carries it.
    func settings(for url: HTTPURL) throws -> ConnectionSettings

    /// Whether a redirect may lead from https to http.
    var allowsDowngrade: Bool { get }
}

/// How a connection to one host is made.
package struct ConnectionSettings: Sendable {
    package var verifiesTLS = true
    /// A PEM file instead of the system's certificate authorities.
    package var authorityFile: String?
    /// More authorities, PEM.
    package var authorities: [UInt8] = []
    /// Client certificates for this host, in the order to try.
    package var clients: [ClientCertificate] = []
    /// Nil connects directly.
    package var proxy: ProxyAddress?
    /// Hosts that are reached without the proxy, in the form of `CURLOPT_NOPROXY`.
    package var proxyExceptions = ""

    package init() {}
}

/// A client certificate and its key: the paths of two PEM files, which libcurl reads.
package struct ClientCertificate: Sendable, Hashable {
    package var certificate: String
    package var key: String

    package init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }
}

/// The settings of one connection, with the client certificate chosen.
struct Connection: Sendable {
    var settings = ConnectionSettings()
    /// Index into `settings.clients`.
    var clientIndex = 0

    var client: ClientCertificate? { settings.clients.isEmpty ? nil : settings.clients[clientIndex] }
}
