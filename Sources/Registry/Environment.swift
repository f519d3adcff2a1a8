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
            if let sign = text.firstIndex(of: "=") { values[String(text[..<sign])] = String(text[text.index(after: sign)...]) }
            entry += 1
        }
        return Environment(values)
    }

    /// Nil where unset or empty.
    subscript(name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    /// `NAME=value` lines for a child.
    var lines: [String] { values.map { "\($0)=\($1)" } }
}
