import ComposefsBytes
import ComposefsLinuxSystem

/// The journal of systemd, if standard error is written to it: each line may begin with its priority (sd-daemon(3), "LOGGING").
enum Journal {
    /// Of syslog(3).
    enum Priority: Int {
        case error = 3, warning = 4, information = 6
    }

    /// Whether standard error is the socket that JOURNAL_STREAM names by device and inode (systemd.exec(5)). A process that this one's
    /// service has started with another standard error inherits the variable, so the variable alone says nothing.
    static let isStandardError: Bool = {
        guard let named = environment("JOURNAL_STREAM")?.utf8Text,
            let status = try? FileDescriptor.duplicate(of: StandardStream.error.rawValue).status()
        else { return false }
        return names(named, device: status.device, inode: status.inode)
    }()

    static func names(_ variable: String, device: UInt64, inode: UInt64) -> Bool { variable == "\(device):\(inode)" }

    /// A message with the priority before each of its lines: the journal makes an entry of every line.
    static func marked(_ text: String, _ priority: Priority) -> String {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        return lines.map { $0.isEmpty ? "" : "<\(priority.rawValue)>\($0)" }.joined(separator: "\n")
    }
}
