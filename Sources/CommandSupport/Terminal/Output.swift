package import ComposefsBytes
package import ComposefsJSON
import ComposefsLinuxSystem
package import Synchronization

/// The kinds of messages that are marked, besides errors.
package enum MessageKind: String, Sendable, CustomStringConvertible {
    case warning, hint

    package var description: String { rawValue }
}

/// Standard output through one buffer, and standard error for everything else.
package enum Output {
    // A command runs on one thread; the buffer is flushed before exit.
    private nonisolated(unsafe) static var buffer: [UInt8] = []

    package static func print(_ line: String = "") throws {
        buffer.append(contentsOf: line.utf8)
        buffer.append(0x0a)
        if buffer.count > 1 << 16 { try flush() }
    }

    package static func write(_ bytes: some Sequence<UInt8>) throws {
        buffer.append(contentsOf: bytes)
        if buffer.count > 1 << 16 { try flush() }
    }

    package static func write(_ bytes: UnsafeRawBufferPointer) throws {
        buffer.append(contentsOf: bytes)
        if buffer.count > 1 << 16 { try flush() }
    }

    /// One JSON document, indented.
    package static func print(_ value: JSONValue) throws { try write(value.serialized(pretty: true, shown: true) + [0x0a]) }

    package static func flush() throws {
        defer { buffer.removeAll(keepingCapacity: true) }
        let fault = buffer.withUnsafeBytes { FileDescriptor.writeAll($0, to: StandardStream.output.rawValue) }
        if let fault { throw CommandError("write to standard output: \(fault)") }
    }

    /// Prints a line for people on standard error as it is: what was done, a question, a line of a report.
    package static func note(_ message: String) { writeError(safe(message) + "\n", .information) }

    /// Prints an error whose form is not that of `error`: of a program with another name, or with a usage line.
    package static func fault(_ message: String) { writeError(safe(message) + "\n", .error) }

    /// Prints a part of a line, such as a question.
    package static func writeError(_ text: String) { writeError(text, .information) }

    /// Prints an error. If errors are wanted as JSON, it is an event; see `ErrorCode`.
    ///
    /// - Parameter status: the exit status that the error leads to if it is the only one.
    package static func error(_ message: String, _ code: ErrorCode = .failed, status: Int32 = 1) {
        let descriptor = progressDescriptor.load(ordering: .relaxed)
        if errorsAreJSON.load(ordering: .relaxed) {
            json([
                "event": EventName.error.json, "code": .string(code.rawValue), "message": .string(message),
                "status": .integer(Int64(status)),
            ])
            // Another descriptor than standard error is for programs, so people are told, too.
            guard descriptor != StandardStream.error.rawValue else { return }
        }
        writeError(prefix + "error: " + safe(message) + "\n", .error)
    }

    /// Prints a warning or a hint on standard error.
    package static func tell(_ kind: MessageKind, _ message: String) {
        writeError(prefix + "\(kind): " + safe(message) + "\n", kind == .warning ? .warning : .information)
    }

    /// What errors, warnings and hints begin with.
    package static let prefix = "cfsoci: "

    /// Whether errors are written as lines of JSON, as they are if JSON about progress is.
    package static let errorsAreJSON = Atomic<Bool>(false)

    /// Removes control characters except line breaks and tabs from a message, which may quote foreign text.
    package static func safe(_ message: String) -> String {
        guard message.unicodeScalars.contains(where: acts) else { return message }
        var text = ""
        for scalar in message.unicodeScalars {
            if acts(scalar) { text += "\\u{" + String(scalar.value, radix: 16) + "}" } else { text.unicodeScalars.append(scalar) }
        }
        return text
    }

    private static func acts(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control: scalar != "\n" && scalar != "\t"
        case .format, .lineSeparator, .paragraphSeparator, .surrogate: true
        default: false
        }
    }

    /// The progress display, if there is one.
    package static let screen = Mutex<TerminalScreen?>(nil)

    private static func writeError(_ text: String, _ priority: Journal.Priority) {
        if let screen = screen.withLock({ $0 }) {
            screen.interject(text)
        } else {
            writeRaw(Journal.isStandardError ? Journal.marked(text, priority) : text, to: StandardStream.error.rawValue)
        }
    }

    /// The descriptor for JSON lines about progress.
    package static let progressDescriptor = Atomic<Int32>(StandardStream.error.rawValue)
    /// Whether the line with the schema's version has been written.
    private static let hasBegunJSON = Mutex(false)

    /// Writes a whole line of JSON about progress, after the line with the schema's version if it is the first. Without a reader it is lost.
    package static func json(_ value: JSONValue) {
        func line(_ value: JSONValue) -> String { String(decoding: value.serialized(shown: true), as: UTF8.self) + "\n" }
        hasBegunJSON.withLock { hasBegun in
            let text = (hasBegun ? "" : line(EventName.schemaLine)) + line(value)
            hasBegun = true
            writeRaw(text, to: progressDescriptor.load(ordering: .relaxed))
        }
    }

    /// Writes bytes to a descriptor, and waits while it accepts none. Errors are ignored, because there is no other place to report them.
    package static func writeRaw(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { _ = FileDescriptor.writeAll(UnsafeRawBufferPointer($0), to: descriptor) }
    }

    /// Bytes as text for a terminal, escaped if they contain control characters.
    package static func printable(_ bytes: ByteString) -> String {
        guard let text = bytes.utf8Text else { return bytes.description }
        let acts = text.unicodeScalars.contains { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate, .unassigned: true
            default: false
            }
        }
        return acts ? bytes.description : text
    }

    package static var outputIsTerminal: Bool { StandardStream.output.isTerminal }
    package static var errorIsTerminal: Bool { StandardStream.error.isTerminal }
}
