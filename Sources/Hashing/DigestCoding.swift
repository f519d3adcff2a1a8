internal import ComposefsBytes

/// Coded as `algorithm:hex`.
extension ContentDigest: Codable {
    public init(from decoder: any Decoder) throws {
        self = try decoder.value(of: "a sha256, sha384 or sha512 digest") { ContentDigest($0) }
    }

    public func encode(to encoder: any Encoder) throws { try encoder.encode(text: description) }
}

/// Coded as hexadecimal digits.
extension ObjectID: Codable {
    public init(from decoder: any Decoder) throws { self = try decoder.value(of: "an object ID") { ObjectID(hex: $0) } }

    public func encode(to encoder: any Encoder) throws { try encoder.encode(text: hex) }
}
