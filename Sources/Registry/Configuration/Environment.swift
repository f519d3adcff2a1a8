@preconcurrency internal import Glibc

/// Environment variables and what else a process has of its surroundings, as a value, so that tests bring their own.
struct Environment: Sendable {
    private let values: [String: String]
    /// Before `/etc`, `/usr` and `/var` of configuration files.
    let systemRoot: String
    let userID: UInt32

    init(_ values: [String: String], systemRoot: String = "", userID: UInt32 = geteuid()) {
        self.values = values
        self.systemRoot = systemRoot
        self.userID = userID
    }

    /// The process's own, now.
    static var ofProcess: Environment {
        var values: [String: String] = [:]
        var entry = environ
        while let line = entry.pointee {
            let text = String(cString: line)
            entry += 1
            guard let sign = text.firstIndex(of: "=") else { continue }
            // Of two the first counts, as for getenv(3).
            let name = String(text[..<sign])
            if values[name] == nil { values[name] = String(text[text.index(after: sign)...]) }
        }
        return Environment(values)
    }

    /// Nil where unset or empty.
    subscript(name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    /// `NAME=value` lines for a child.
    var lines: [String] { values.map { "\($0)=\($1)" } }
}
