internal import ComposefsCCurl
internal import Glibc

/// Status and header fields of a final (not 1xx) response.
package struct ResponseHead: Sendable {
    package var status = 0
    package var isHTTP1 = true
    /// In the order received; names in lower case.
    package var fields: [(name: String, value: String)] = []

    package init(status: Int = 0) { self.status = status }

    /// The value of the first field of that name, given in lower case.
    package subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    package func all(_ name: String) -> [String] { fields.lazy.filter { $0.name == name }.map(\.value) }

    /// RFC 9110 §8.6, in bytes. Nil if absent or not a decimal number; `UInt64.max` if the number is larger.
    package var contentLength: UInt64? {
        guard let text = self["content-length"], !text.isEmpty, text.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) else { return nil }
        return UInt64(text) ?? .max
    }

    /// The media type without parameters, in lower case.
    package var mediaType: String? {
        guard let value = self["content-type"] else { return nil }
        let type = value.prefix { $0 != ";" }.trimmingBlanks
        return type.isEmpty ? nil : type.lowercased()
    }

    /// Whether the body ends with the connection, so that its end does not prove that it is complete (RFC 9112 §6.3).
    package var endsWithConnection: Bool { isHTTP1 && contentLength == nil && self["transfer-encoding"] == nil }

    /// RFC 9110 §10.2.3: seconds, or a date, which is compared with the server's Date field if there is one.
    package var retryAfter: Duration? {
        guard let value = self["retry-after"]?[...].trimmingBlanks else { return nil }
        if let seconds = UInt32(value) { return .seconds(Int64(seconds)) }
        let then = ccurl_getdate(String(value))
        guard then > 0 else { return nil }
        let server = self["date"].map { ccurl_getdate($0) } ?? -1
        let now = server > 0 ? server : time(nil)
        return .seconds(Int64(max(0, then - now)))
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 §14.4).
package struct ContentRange: Equatable {
    package var first: UInt64
    package var last: UInt64
    /// Nil for `*`.
    package var total: UInt64?

    package init?(_ text: String) {
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
