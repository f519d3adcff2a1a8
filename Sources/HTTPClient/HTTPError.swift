internal import ComposefsConcurrency

/// Why a request failed. Holds no secret: the URL has neither query nor user.
public struct HTTPError: Error, Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Hashable {
        /// The host cannot be reached, or the connection broke.
        case connection
        case timeout
        /// The TLS handshake or a certificate.
        case tls
        /// The server's answer breaks HTTP, or cannot be followed.
        case badResponse
        case tooLarge
        /// Memory or threads.
        case resources
        case cancelled
        /// The caller's own settings for the host.
        case configuration
    }

    /// What failed, with its values. `detail` is libcurl's message.
    public enum Reason: Sendable {
        /// The name of the host or of its proxy does not resolve.
        case unresolved(detail: String)
        /// The TCP connection is refused, or there is no route.
        case unreachable(detail: String)
        case proxyRefused(status: Int)
        /// Name resolution, connection and TLS handshake took too long.
        case connectTimeout(detail: String)
        case brokenConnection(detail: String)
        /// Too few bytes arrived for that long.
        case receiveStalled(Duration)
        /// The server accepted too few bytes for that long.
        case sendStalled(Duration)
        /// No complete response within the time for a request.
        case noResponse(Duration)
        /// No response within that time after the whole body was sent.
        case noResponseToUpload(Duration)
        case handshake(detail: String)
        case untrustedCertificate(detail: String)
        case clientCertificate(detail: String)
        case certificateAuthorities(detail: String)
        /// A redirect from https to http, with the target's URL.
        case downgrade(status: Int, target: String)
        case tooManyRedirects(limit: Int)
        /// A redirect without a usable Location field.
        case missingLocation(status: Int)
        /// All header fields together, in bytes.
        case headersTooLarge(limit: Int)
        /// `size` is in bytes; nil if the server did not announce it.
        case bodyTooLarge(size: UInt64?, limit: Int)
        /// The body's gzip encoding is damaged.
        case contentEncoding(detail: String)
        /// What libcurl refuses for another reason.
        case protocolViolation(detail: String)
        case outOfMemory
        /// libcurl or its thread could not be started.
        case initialization(detail: String)
        case cancelled
        /// `ConnectionPolicy.settings` threw.
        case configuration(any Error)
    }

    public let reason: Reason
    /// Without query and user; empty if the session could not be started.
    public let url: String
    /// Host, and port unless it is the scheme's default.
    public let host: String
    /// Whether the server seems to speak no TLS.
    public let suggestsPlainHTTP: Bool

    init(_ reason: Reason, _ url: HTTPURL?, suggestsPlainHTTP: Bool = false) {
        self.reason = reason
        self.url = url?.display ?? ""
        host = url?.authority ?? ""
        self.suggestsPlainHTTP = suggestsPlainHTTP
    }

    public var kind: Kind {
        switch reason {
        case .unresolved, .unreachable, .proxyRefused, .brokenConnection: .connection
        case .connectTimeout, .receiveStalled, .sendStalled, .noResponse, .noResponseToUpload: .timeout
        case .handshake, .untrustedCertificate, .clientCertificate, .certificateAuthorities, .downgrade: .tls
        case .tooManyRedirects, .missingLocation, .headersTooLarge, .contentEncoding, .protocolViolation: .badResponse
        case .bodyTooLarge: .tooLarge
        case .outOfMemory, .initialization: .resources
        case .cancelled: .cancelled
        case .configuration: .configuration
        }
    }

    /// The status of the response that is the reason, if one is.
    public var status: Int? {
        switch reason {
        case .proxyRefused(let status), .missingLocation(let status), .downgrade(let status, _): status
        default: nil
        }
    }

    package enum Retry: Equatable, Sendable {
        case never
        /// The host could not be reached at all. A few tries only: usually the name is wrong.
        case unreachable
        /// A broken connection or a stall.
        case transient
    }

    /// Whether another try makes sense.
    package var retry: Retry {
        switch reason {
        case .proxyRefused(let status): status >= 500 ? .unreachable : .never
        case .unresolved, .unreachable, .connectTimeout, .handshake: .unreachable
        case .brokenConnection, .receiveStalled, .sendStalled, .noResponse, .noResponseToUpload: .transient
        default: .never
        }
    }

    /// One line.
    public var description: String {
        switch reason {
        case .unresolved(let detail): "cannot reach \(host): \(detail); check the name and the network"
        case .unreachable(let detail): "cannot reach \(host): \(detail)"
        case .proxyRefused(407):
            "cannot reach \(host): the proxy requires a user and password (status 407); write them into its URL: "
                + "http://USER:PASSWORD@HOST:PORT"
        case .proxyRefused(let status): "cannot reach \(host): the proxy refused with status \(status)"
        case .connectTimeout(let detail): "cannot connect to \(host): \(detail)"
        case .brokenConnection(let detail): "\(url): the connection broke: \(detail)"
        case .receiveStalled(let time): "\(url): the server sent almost nothing for \(time.seconds)"
        case .sendStalled(let time): "\(url): the server accepted almost nothing for \(time.seconds)"
        case .noResponse(let time): "\(url): no complete response within \(time.seconds)"
        case .noResponseToUpload(let time): "\(url): no response within \(time.seconds) after everything was sent"
        case .handshake(let detail): "TLS handshake with \(host) failed: \(detail)"
        case .untrustedCertificate(let detail): "the certificate of \(host) is not trusted: \(detail)"
        case .clientCertificate(let detail): "cannot use the client certificate for \(host): \(detail)"
        case .certificateAuthorities(let detail): "cannot read the certificate authorities: \(detail)"
        case .downgrade(_, let target): "\(url) redirects to \(target) without TLS"
        case .tooManyRedirects(let limit): "\(url): more than \(limit) redirects"
        case .missingLocation(let status): "\(url): status \(status) without a usable Location"
        case .headersTooLarge(let limit): "\(url): more than \(limit) bytes of header fields"
        case .bodyTooLarge(let size?, let limit): "\(url): the response has \(size) bytes; the limit is \(limit)"
        case .bodyTooLarge(nil, let limit): "\(url): the response has more than \(limit) bytes"
        case .contentEncoding(let detail): "\(url): cannot decode the response: \(detail)"
        case .protocolViolation(let detail): "\(url): \(detail)"
        case .outOfMemory: "\(url): out of memory"
        case .initialization(let detail): "cannot start HTTP: \(detail)"
        case .cancelled: "\(url): cancelled"
        case .configuration(let error): "\(error)"
        }
    }
}

extension Duration {
    /// `60 s`, `0.5 s`.
    fileprivate var seconds: String {
        let nanoseconds = clampedNanoseconds
        return nanoseconds % 1_000_000_000 == 0 ? "\(nanoseconds / 1_000_000_000) s" : "\(Double(nanoseconds) / 1e9) s"
    }
}
