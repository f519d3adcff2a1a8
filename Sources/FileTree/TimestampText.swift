import ComposefsBytes

/// Text and coding in the form of RFC 3339.
extension Timestamp: Codable, CustomStringConvertible {
    /// Nil unless the text is a date and time with a zone: `2026-11-21T04:33:49.5Z`.
    public init?(rfc3339 text: String) {
        guard let (seconds, nanoseconds) = RFC3339.parse(text) else { return nil }
        self.init(seconds: seconds, nanoseconds: nanoseconds)
    }

    /// In UTC, with a fraction of a second only if there is one. Years outside 0…9999 are clamped.
    public var description: String { RFC3339.text(seconds, nanoseconds: nanoseconds) }

    public init(from decoder: any Decoder) throws {
        self = try decoder.value(of: "a time in the form of RFC 3339") { Timestamp(rfc3339: $0) }
    }

    public func encode(to encoder: any Encoder) throws { try encoder.encode(text: description) }
}
