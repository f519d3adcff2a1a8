// TOML: a parser of TOML 1.0 (toml.io) for configuration files.
//
// The module does no I/O and knows no setting. Documents may be hostile: nesting is limited, and an error names its line.
//
// - `TOML.parse` returns a `TOMLValue`, which knows the line that it begins on; `TOMLError` is a mistake in the document.

/// A TOML value and the line it begins on.
package struct TOMLValue {
    package indirect enum Content {
        case table([String: TOMLValue])
        case array([TOMLValue])
        case string(String)
        case integer(Int64)
        case boolean(Bool)
        /// A float, date or time. No setting has such a value, so it is not parsed further.
        case other
    }

    package var content: Content
    /// From 1.
    package var line: Int

    package var table: [String: TOMLValue]? { if case .table(let members) = content { members } else { nil } }
    package var array: [TOMLValue]? { if case .array(let elements) = content { elements } else { nil } }
    package var string: String? { if case .string(let text) = content { text } else { nil } }
    package var boolean: Bool? { if case .boolean(let flag) = content { flag } else { nil } }

    /// A table's member.
    package subscript(key: String) -> TOMLValue? { table?[key] }
}

/// A mistake in a document.
package struct TOMLError: Error {
    /// From 1.
    package var line: Int
    /// One line.
    package var reason: String
}

/// TOML 1.0 (toml.io).
package enum TOML {
    /// The limit of tables and arrays inside one another.
    package static let depthLimit = 64

    /// The document's root table.
    package static func parse(_ bytes: [UInt8]) throws(TOMLError) -> TOMLValue {
        guard String(validating: bytes, as: UTF8.self) != nil else {
            var line = 1
            for part in bytes.split(separator: 0x0a, omittingEmptySubsequences: false) {
                if String(validating: part, as: UTF8.self) == nil { break }
                line += 1
            }
            throw TOMLError(line: line, reason: "is no UTF-8")
        }
        var document = TOMLDocument(TOMLScanner(bytes))
        return try document.parse()
    }
}
