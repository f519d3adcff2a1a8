package import ComposefsJSON

/// The result of a command, as a value: lines of text for people, one JSON document for programs.
///
/// The keys of the document and the lines are promised to scripts; see the table of commands in the manual. A command computes its result
/// first and prints it last, so that both forms agree.
package protocol CommandReport {
    /// Without line ends and control characters.
    var lines: [String] { get }
    var json: JSONValue { get }
}

extension CommandReport {
    package func show(asJSON: Bool) throws {
        if asJSON { return try Output.print(json) }
        for line in lines { try Output.print(line) }
    }
}

extension JSONValue {
    /// Texts as an array.
    package static func texts(_ values: some Sequence<some CustomStringConvertible>) -> JSONValue {
        .array(values.map { .string($0.description) })
    }

    /// A text, or null.
    package static func text(_ value: (some CustomStringConvertible)?) -> JSONValue { value.map { .string($0.description) } ?? .null }

    package static func count(_ value: Int) -> JSONValue { .integer(Int64(value)) }
}
