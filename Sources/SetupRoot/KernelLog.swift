import ComposefsBytes
import ComposefsLinuxSystem

/// Messages during boot. They go to the kernel's log, which is there before any other log, and to standard error.
enum KernelLog {
    /// Levels of the kernel's log (syslog(2)).
    enum Level: Int {
        /// Shown on the console even if the kernel has the argument `quiet`.
        case error = 3
        case warning = 4
        case info = 6
    }

    /// Writes one line. A log that cannot be written to is no reason to stop.
    static func tell(_ level: Level, _ line: String) {
        if let log = try? FileDescriptor.open("/dev/kmsg", [.writeOnly, .nonBlocking]) {
            // Each write is a record.
            try? log.writeAll(Array("<\(level.rawValue)>\(line)\n".utf8))
        }
        print(line)
    }

    /// Writes one line to standard error alone.
    static func print(_ line: String) { _ = write(line + "\n", to: .error) }

    /// - Returns: whether everything was written.
    static func write(_ text: String, to stream: StandardStream) -> Bool {
        var text = text
        return text.withUTF8 { FileDescriptor.writeAll(UnsafeRawBufferPointer($0), to: stream.rawValue) == nil }
    }
}
