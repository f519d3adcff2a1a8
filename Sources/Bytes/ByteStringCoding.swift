/// Coded as text if the bytes are UTF-8, otherwise as an array of numbers, so that every value survives.
extension ByteString: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
            self.init(text)
        } else {
            self.init(try container.decode([UInt8].self))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let text = utf8Text { try container.encode(text) } else { try container.encode(bytes) }
    }
}
