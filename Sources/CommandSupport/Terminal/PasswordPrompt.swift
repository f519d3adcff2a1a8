import ComposefsBytes
import ComposefsLinuxSystem

/// Questions on the terminal.
package enum PasswordPrompt {
    private static let limit = 4096

    package static var isPossible: Bool { StandardStream.input.isTerminal && StandardStream.error.isTerminal }

    /// Reads one line from the terminal. It is not shown while it is typed, unless `isShown`.
    package static func ask(_ what: String, isShown: Bool = false) throws -> String {
        guard isPossible else {
            throw CommandError("there is no terminal to ask for a password at; log in first, for example with login --password-stdin")
        }
        // While input is hidden, `readLine` handles the keys that send signals.
        guard let echo = EchoGuard(hides: !isShown) else {
            throw CommandError("the terminal cannot be set to hide a password")
        }
        defer { withExtendedLifetime(echo) {} }
        write("\(Output.printable(ByteString(what))): ")
        defer { if !isShown { write("\n") } }
        return try readLine()
    }

    private static func readLine() throws -> String {
        var line: [UInt8] = []
        while true {
            var byte: UInt8 = 0
            let count = try? withUnsafeMutableBytes(of: &byte) { try StandardStream.input.read(into: $0) }
            guard count == 1 else { throw CommandError("the terminal was closed") }
            switch byte {
            case 0x0a, 0x0d:
                guard let text = String(validating: line, as: UTF8.self) else { throw CommandError("the password is no UTF-8") }
                return text
            case 0x03, 0x04, 0x1c: throw Interrupted()
            case 0x15: line = []
            case 0x08, 0x7f:
                // Removes a whole character, of up to four bytes.
                while let last = line.popLast(), last & 0xc0 == 0x80 {}
            default:
                guard line.count < limit else { throw CommandError("a password has at most \(limit) bytes") }
                line.append(byte)
            }
        }
    }

    private static func write(_ text: String) {
        Output.writeRaw(text, to: StandardStream.error.rawValue)
    }
}

/// The user pressed ^C at a question: the exit status is 130, as for the signal.
package struct Interrupted: Error {}
