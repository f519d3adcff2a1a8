package import ArgumentParser
import ComposefsBytes
package import ComposefsJSON

/// `--format` of the commands that list things: one line for each, with the chosen values separated by tabs.
package struct FormatOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Print only these values of each entry, separated by tabs: their names in the JSON document, separated by commas.",
            valueName: "field,…"))
    package var format: String?

    package init() {}

    /// The chosen fields; nil without the option.
    ///
    /// - Parameters:
    ///   - known: the names of all fields.
    ///   - json: whether `--json` was given, which excludes the option.
    /// - Throws: `ValidationError` if a field is unknown or none is named.
    package func fields(of known: [String], json: Bool) throws -> [String]? {
        guard let format else { return nil }
        guard !json else { throw ValidationError("--format and --json exclude each other") }
        let fields = format.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        for field in fields where !known.contains(field) {
            throw ValidationError("--format: unknown field \"\(field)\"; known are \(known.joined(separator: ", "))")
        }
        return fields
    }

    /// Prints the lines. Lists are separated by commas, absent values are empty, and tabs and line ends are escaped.
    package static func show(_ fields: [String], _ entries: [JSONValue]) throws {
        for entry in entries { try Output.print(fields.map { text(entry[$0] ?? .null) }.joined(separator: "\t")) }
    }

    private static func text(_ value: JSONValue) -> String {
        switch value {
        case .null: ""
        case .string(let text): Output.printable(ByteString(text))
        case .array(let values): values.map(text).joined(separator: ",")
        default: String(decoding: value.serialized(shown: true), as: UTF8.self)
        }
    }
}
