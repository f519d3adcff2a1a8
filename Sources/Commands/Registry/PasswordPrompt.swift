import ComposefsBytes
import Glibc

/// Questions on the terminal.
enum PasswordPrompt {
    private static let limit = 4096

    static var isPossible: Bool { isatty(0) == 1 && isatty(2) == 1 }

    /// One line from the terminal, which is not shown while it is typed unless `isShown`.
    static func ask(_ what: String, isShown: Bool = false) throws -> String {
        guard isPossible else {
            throw CommandError("there is no terminal to ask for a password at; log in first, for example with login --password-stdin")
        }
        return try ask(what, isShown: isShown, input: 0)
    }

    private static func ask(_ what: String, isShown: Bool, input: Int32) throws -> String {
        // Keys that send signals are read as such below.
        guard let echo = EchoGuard(input, hides: isShown ? 0 : ECHO | ECHONL | ICANON | ISIG) else {
            throw CommandError("the terminal cannot be set to hide a password")
        }
        defer { withExtendedLifetime(echo) {} }
        write("\(Output.printable(ByteString(what))): ")
        defer { if !isShown { write("\n") } }
        return try readLine(input)
    }

    private static func readLine(_ input: Int32) throws -> String {
        var line: [UInt8] = []
        while true {
            var byte: UInt8 = 0
            let count = read(input, &byte, 1)
            if count < 0, errno == EINTR { continue }
            guard count == 1 else { throw CommandError("the terminal is gone") }
            switch byte {
            case 0x0a, 0x0d:
                guard let text = String(validating: line, as: UTF8.self) else { throw CommandError("the password is no UTF-8") }
                return text
            case 0x03, 0x04, 0x1c: throw Interrupted()
            case 0x15: line = []
            case 0x08, 0x7f:
                // A whole character, of up to four bytes.
                while let last = line.popLast(), last & 0xc0 == 0x80 {}
            default:
                guard line.count < limit else { throw CommandError("a password has at most \(limit) bytes") }
                line.append(byte)
            }
        }
    }

    private static func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(2, bytes, bytes.count)
    }
}

/// The user pressed ^C at a question: exit status 130, as for the signal.
struct Interrupted: Error {}
