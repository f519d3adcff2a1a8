public import ArgumentParser
public import ComposefsBytes
import ComposefsLinuxSystem

/// Arguments are bytes, but the argument parser takes text. Bytes that are not UTF-8 are represented by private-use characters.
package enum Arguments {
    /// U+10FE00 plus the byte.
    private static let base: UInt32 = 0x10fe00

    /// The process's arguments, its name first.
    package static func all() -> [ByteString] { Host.arguments }

    /// The process's arguments without its name.
    package static func texts() -> [String] { all().dropFirst().map { text($0.bytes) } }

    /// Whether one of some flags without a value follows the subcommand's name. The parser does not tell: global flags mean the same before it
    /// and after it.
    ///
    /// - Parameter valued: the options that take the next argument as their value.
    package static func followsCommand(_ flags: Set<String>, letter: Character, valued: Set<String>) -> Bool {
        var rest = texts()[...]
        var isAfterName = false
        while let argument = rest.popFirst() {
            if argument == "--" { return false }
            if valued.contains(argument) {
                _ = rest.popFirst()
            } else if !argument.hasPrefix("-") {
                isAfterName = true
            } else if isAfterName {
                let isGroup = !argument.hasPrefix("--") && argument.dropFirst().contains(letter)
                if flags.contains(argument) || isGroup { return true }
            }
        }
        return false
    }

    package static func text(_ bytes: some Collection<UInt8>) -> String {
        if let text = String(validating: bytes, as: UTF8.self), !text.unicodeScalars.contains(where: { byte(of: $0) != nil }) {
            return text
        }
        var text = ""
        var rest = Array(bytes)[...]
        while let first = rest.first {
            let character = (1...4).lazy.compactMap { String(validating: rest.prefix($0), as: UTF8.self)?.unicodeScalars.first }.first
            if let character, byte(of: character) == nil {
                text.unicodeScalars.append(character)
                rest = rest.dropFirst(String(character).utf8.count)
            } else {
                if let scalar = Unicode.Scalar(base + UInt32(first)) { text.unicodeScalars.append(scalar) }
                rest = rest.dropFirst()
            }
        }
        return text
    }

    package static func bytes(_ text: String) -> ByteString {
        var bytes: [UInt8] = []
        for scalar in text.unicodeScalars {
            if let byte = byte(of: scalar) { bytes.append(byte) } else { bytes += Array(String(scalar).utf8) }
        }
        return ByteString(bytes)
    }

    private static func byte(of scalar: Unicode.Scalar) -> UInt8? {
        scalar.value >= base + 0x80 ? UInt8(exactly: scalar.value - base) : nil
    }
}

extension ByteString: ExpressibleByArgument {
    public init?(argument: String) { self = Arguments.bytes(argument) }

    public var defaultValueDescription: String { description }

    /// For JSON, whose strings escape control characters: the text itself, so that a script can pass it back.
    package var jsonText: String { utf8Text ?? description }
}
