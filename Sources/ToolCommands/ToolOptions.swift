import ComposefsBytes

/// Arguments, split as getopt_long(3) does: long options only, which may be shortened and may stand anywhere before `--`.
struct ToolOptions {
    /// In the order of the command line. The value is nil for options that take none.
    private(set) var options: [(name: String, value: ByteString?)] = []
    private(set) var operands: [ByteString] = []

    /// - Parameters:
    ///   - flags: the names of options without a value.
    ///   - valued: the names of options with one: `--name=VALUE` or `--name VALUE`.
    ///   - usage: follows the message of a fault.
    init(_ arguments: [ByteString], flags: [String], valued: [String], usage: String) throws {
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--" {
                operands += rest
                return
            }
            // A single dash is an operand: standard input or output.
            guard argument.hasPrefix("-"), argument.count > 1 else {
                operands.append(argument)
                continue
            }
            guard argument.hasPrefix("--") else { throw ToolError.usage("unknown option \(argument)", usage) }
            let parts = argument.bytes.dropFirst(2).split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            let typed = String(decoding: parts[0], as: UTF8.self)
            let known = flags + valued
            let matches = known.contains(typed) ? [typed] : known.filter { $0.hasPrefix(typed) }
            guard let name = matches.first, !typed.isEmpty else { throw ToolError.usage("unknown option \(argument)", usage) }
            guard matches.count == 1 else {
                throw ToolError.usage("\(argument) may be \(matches.map { "--" + $0 }.joined(separator: " or "))", usage)
            }
            let given = parts.count > 1 ? ByteString(parts[1]) : nil
            guard valued.contains(name) else {
                guard given == nil else { throw ToolError.usage("the option --\(name) takes no value", usage) }
                options.append((name, nil))
                continue
            }
            guard let value = given ?? rest.popFirst() else { throw ToolError.usage("the option --\(name) needs a value", usage) }
            options.append((name, value))
        }
    }

    func has(_ name: String) -> Bool { options.contains { $0.name == name } }

    /// The value of an option; the last if it was given several times.
    func value(_ name: String) -> ByteString? { options.last { $0.name == name }?.value }

    func values(_ name: String) -> [ByteString] { options.filter { $0.name == name }.compactMap(\.value) }

    /// A decimal number.
    func number(_ name: String) throws -> Int? {
        guard let value = value(name) else { return nil }
        guard let text = value.utf8Text, let number = Int(text), !text.hasPrefix("+") else {
            throw ToolError("--\(name) takes a number, not \(value)")
        }
        return number
    }
}
