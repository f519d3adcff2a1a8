/// One HTTP request.
package struct HTTPRequest: Sendable {
    package var url: HTTPURL
    /// Complete `Name: value` lines. May hold secrets: never printed.
    package var headers: [String] = []
    /// The value of the Authorization field. Sent to `url`'s origin only, not to the target of a redirect.
    package var authorization: String?
    /// Sent as a form by POST; nil is a GET unless `method` says otherwise.
    package var form: [UInt8]?
    /// `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`; nil is a GET, or a form's POST.
    package var method: String?
    /// Sent with `method`.
    package var body = RequestBody.none
    /// False uses HTTP/1.1 and a connection of its own for as long as the response lasts.
    package var mayShareConnection = true
    /// Instead of the session's.
    package var connectTimeout: Duration?

    package init(
        _ url: HTTPURL, headers: [String] = [], authorization: String? = nil, form: [UInt8]? = nil, method: String? = nil,
        body: RequestBody = .none, mayShareConnection: Bool = true, connectTimeout: Duration? = nil
    ) {
        self.url = url
        self.headers = headers
        self.authorization = authorization
        self.form = form
        self.method = method
        self.body = body
        self.mayShareConnection = mayShareConnection
        self.connectTimeout = connectTimeout
    }
}

/// What follows a request's header fields.
package enum RequestBody: Sendable {
    case none
    /// May be empty: a POST of nothing has a Content-Length too.
    case bytes([UInt8])
    /// Produced by another thread. `size` is in bytes; nil if it is not known beforehand.
    case stream(UploadBody, size: UInt64?)
}
