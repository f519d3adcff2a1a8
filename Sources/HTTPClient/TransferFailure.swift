internal import ComposefsBytes
internal import ComposefsCCurl

/// Why a transfer ended before its response did.
struct TransferFailure: Error {
    enum Cause: Equatable {
        /// A `CURLcode`.
        case curl(UInt32)
        /// Fewer bytes than the session's minimum in the stall timeout.
        case stalled
        /// Not there at the reader's deadline.
        case late
        case headersTooLarge
        case cancelled
    }

    var cause: Cause
    /// libcurl's message. Names hosts and ports, never headers.
    var message = ""
    /// Whether a TCP connection was established.
    var wasConnected = false
    /// Whether TLS was established on it.
    var wasEncrypted = false
    /// The status with which a proxy refused a tunnel.
    var proxyStatus: Int?

    /// Whether the server ended the TLS connection with an alert (RFC 8446 §6.2), as it does if it rejects or misses a client certificate.
    /// This is how OpenSSL words a received alert. TLS 1.3 servers send it after the handshake.
    var isAlert: Bool {
        if case .curl = cause { message.contains(" alert ") } else { false }
    }

    /// Whether an established connection broke, during the handshake or later, without a reason given.
    var isBrokenConnection: Bool {
        guard case .curl(let raw) = cause else { return false }
        return [
            CURLE_SSL_CONNECT_ERROR, CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_SEND_FAIL_REWIND, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE,
            CURLE_HTTP2, CURLE_HTTP2_STREAM, CURLE_AGAIN,
        ].contains(CURLcode(raw))
    }
}

extension HTTPError {
    init(_ failure: TransferFailure, _ url: HTTPURL, _ options: HTTPOptions) {
        switch failure.cause {
        case .cancelled: self.init(.cancelled, url)
        case .stalled: self.init(.receiveStalled(options.stallTimeout), url)
        case .late: self.init(.noResponse(options.requestTimeout), url)
        case .headersTooLarge: self.init(.headersTooLarge(limit: Transfer.headerLimit), url)
        case .curl(let code): self.init(curl: CURLcode(code), failure, url)
        }
    }

    private init(curl code: CURLcode, _ failure: TransferFailure, _ url: HTTPURL) {
        let detail = printable(failure.message)
        let failedBeforeTLS = url.scheme == "https" && !failure.wasEncrypted
        if let status = failure.proxyStatus {
            self.init(.proxyRefused(status: status), url, suggestsPlainHTTP: failedBeforeTLS && status != 407)
            return
        }
        switch code {
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY: self.init(.unresolved(detail: detail), url)
        case CURLE_COULDNT_CONNECT:
            self.init(.unreachable(detail: detail), url, suggestsPlainHTTP: failedBeforeTLS && url.isDefaultPort)
        case CURLE_SSL_CONNECT_ERROR: self.init(.handshake(detail: detail), url, suggestsPlainHTTP: failedBeforeTLS)
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_CRL_BADFILE:
            self.init(.untrustedCertificate(detail: detail), url)
        case CURLE_SSL_CERTPROBLEM: self.init(.clientCertificate(detail: detail), url)
        case CURLE_SSL_CACERT_BADFILE: self.init(.certificateAuthorities(detail: detail), url)
        case CURLE_OPERATION_TIMEDOUT:
            self.init(.connectTimeout(detail: detail), url, suggestsPlainHTTP: failedBeforeTLS && failure.wasConnected)
        // SEND_FAIL_REWIND: libcurl cannot repeat a body that is produced while it is sent.
        case CURLE_SEND_FAIL_REWIND, CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE, CURLE_HTTP2,
            CURLE_HTTP2_STREAM, CURLE_AGAIN:
            self.init(.brokenConnection(detail: detail), url, suggestsPlainHTTP: failedBeforeTLS)
        case CURLE_OUT_OF_MEMORY: self.init(.outOfMemory, url)
        default: self.init(.protocolViolation(detail: detail), url)
        }
    }
}
