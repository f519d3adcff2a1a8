// Values that are coded as one text.

extension Decoder {
    /// The value of a text.
    ///
    /// - Parameters:
    ///   - form: what the text is to be, for the error, such as `an object ID`.
    ///   - parse: nil for a text of another form.
    /// - Throws: `DecodingError`.
    package func value<Value>(of form: String, _ parse: (String) -> Value?) throws -> Value {
        let container = try singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = parse(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "\"\(text)\" is not \(form)")
        }
        return value
    }
}

extension Encoder {
    package func encode(text: String) throws {
        var container = singleValueContainer()
        try container.encode(text)
    }
}
