/// One request and the beginning of its response, for logs.
package struct HTTPExchange: Sendable {
    package let method: String
    package let url: HTTPURL
    /// Nil if there was no response.
    package let status: Int?
    /// Until the response's header fields were complete, or the request failed.
    package let duration: Duration

    init(_ request: HTTPRequest, status: Int?, since began: ContinuousClock.Instant) {
        method = request.method ?? (request.form == nil ? "GET" : "POST")
        url = request.url
        self.status = status
        duration = began.duration(to: .now)
    }
}
