// HTTP over libcurl.
//
//   HTTPSession      one request and its response: redirects, client certificates, timeouts
//     Network        one thread that drives a curl multi handle; all connections of the session
//       Transfer     one exchange, handed over between the network thread and the thread that reads it
//         ByteRing   the bytes in between, bounded
//   UploadBody       a request body that is produced while it is sent
//   CurlLibrary      libcurl is loaded when it is first used
//   HTTPError        what failed, the values, and whether another try makes sense
//
// The module knows no registry: a caller's `ConnectionPolicy` decides which certificates, proxy and TLS checks a host gets. Nothing outside the
// module sees libcurl.

/// How a session identifies itself, and how long it waits.
package struct HTTPOptions: Sendable {
    package var userAgent = ""
    /// Bounds name resolution, the TCP connection and the TLS handshake together.
    package var connectTimeout = Duration.seconds(30)
    /// Bounds the time from the last byte sent to the response's header fields, and the time to read a small body.
    package var requestTimeout = Duration.seconds(120)
    /// A transfer that moves fewer than `stallMinimum` bytes in this time, in either direction, has stalled.
    package var stallTimeout = Duration.seconds(60)
    /// In bytes.
    package var stallMinimum = 1024
    /// Called after each request, on the thread that made it.
    package var observe: (@Sendable (HTTPExchange) -> Void)?

    package init() {}
}
