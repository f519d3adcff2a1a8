internal import ComposefsCCurl

/// One HTTP request, without redirects: what a `Transfer` sends.
struct HTTPRequest: Sendable {
    var url: HTTPURL
    /// Complete `Name: value` lines. May hold secrets: never printed.
    var headers: [String] = []
    /// Sent as a form by POST; nil is a GET unless `method` says otherwise.
    var form: [UInt8]?
    /// `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`; nil is a GET, or a form's POST.
    var method: String?
    /// With `method`.
    var body = RequestBody.none
    /// False keeps to HTTP/1.1, with a connection of its own for as long as the response lasts.
    var mayShareConnection = true
    /// Bounds connection and TLS handshake together.
    var connectTimeout: Duration
    var connection = ConnectionSettings()
}

/// How a connection to one host is made.
struct ConnectionSettings: Sendable {
    var verifiesTLS = true
    /// A PEM file instead of the system's certificate authorities.
    var authorityFile: String?
    /// PEM, besides those.
    var authorities: [UInt8] = []
    var client: ClientCertificate?
    /// Its place among those that there are.
    var clientIndex = 0
    var clientCount = 0
    /// Nil connects directly.
    var proxy: ProxyAddress?
    /// Hosts that are reached directly all the same, in curl's form.
    var proxyExceptions = ""
}

/// What follows a request's header fields.
enum RequestBody: Sendable {
    case none
    /// May be empty: a POST of nothing has a Content-Length all the same.
    case bytes([UInt8])
    /// Comes from another thread; its size in bytes, where it is known beforehand.
    case stream(UploadBody, size: UInt64?)
}

/// Status and header fields of a final (not 1xx) response.
struct ResponseHead: Sendable {
    var status = 0
    var isHTTP1 = true
    /// Names in lower case, in the order they came.
    var fields: [(name: String, value: String)] = []

    /// The first field of that name (lower case).
    subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    func all(_ name: String) -> [String] { fields.lazy.filter { $0.name == name }.map(\.value) }

    /// RFC 9110 §8.6; nil where absent or no decimal number, and the largest there is where the number is larger.
    var contentLength: UInt64? {
        guard let text = self["content-length"], !text.isEmpty, text.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) else { return nil }
        return UInt64(text) ?? .max
    }

    /// The media type without parameters, in lower case.
    var mediaType: String? {
        guard let value = self["content-type"] else { return nil }
        let type = value.prefix { $0 != ";" }.trimmingBlanks
        return type.isEmpty ? nil : type.lowercased()
    }

    /// Whether the body ends only where the connection does, so that a clean end says nothing (RFC 9112 §6.3).
    var endsWithConnection: Bool { isHTTP1 && contentLength == nil && self["transfer-encoding"] == nil }

    /// RFC 9110 §10.2.3: seconds, or a date compared with the server's own clock where it sent one.
    var retryAfter: Duration? {
        guard let value = self["retry-after"]?[...].trimmingBlanks else { return nil }
        if let seconds = UInt32(value) { return .seconds(Int64(seconds)) }
        let then = curl_getdate(String(value), nil)
        guard then > 0 else { return nil }
        let server = self["date"].map { curl_getdate($0, nil) } ?? -1
        let now = server > 0 ? server : time(nil)
        return .seconds(Int64(max(0, then - now)))
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 §14.4).
struct ContentRange: Equatable {
    var first: UInt64
    var last: UInt64
    /// Nil for `*`.
    var total: UInt64?

    init?(_ text: String) {
        let parts = text[...].trimmingBlanks.split(separator: " ", omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bytes" else { return nil }
        let sides = parts[1].split(separator: "/", omittingEmptySubsequences: false)
        guard sides.count == 2 else { return nil }
        let ends = sides[0].split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let first = UInt64(ends[0]), let last = UInt64(ends[1]), first <= last else { return nil }
        if sides[1] == "*" {
            total = nil
        } else {
            guard let count = UInt64(sides[1]), last < count else { return nil }
            total = count
        }
        self.first = first
        self.last = last
    }
}

extension Substring {
    /// Without blanks and tabs at both ends.
    var trimmingBlanks: Substring {
        var slice = self
        while let first = slice.first, first == " " || first == "\t" { slice.removeFirst() }
        while let last = slice.last, last == " " || last == "\t" { slice.removeLast() }
        return slice
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters, for query values and forms.
func percentEncoded(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var out: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
            out.append(byte)
        default:
            out += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: out, as: UTF8.self)
}

/// What a server said, fit for one line of a terminal: control characters gone, cut at `limit` characters.
func printable(_ text: String, limit: Int = 200) -> String {
    var out = ""
    var count = 0
    for scalar in text.unicodeScalars {
        guard count < limit else { return out + "…" }
        switch scalar.value {
        case 0x20...0x7e: out.unicodeScalars.append(scalar)
        // Neither C1 controls nor bidirectional marks: they could rewrite the line.
        case 0xa1...0x200a, 0x2010...0x2027, 0x2030...0x205f, 0x2070...0xd7ff: out.unicodeScalars.append(scalar)
        default: if out.last != " " { out += " " }
        }
        count += 1
    }
    return out
}
