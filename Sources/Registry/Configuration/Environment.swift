@preconcurrency internal import Glibc

/// Environment variables, user and root directory as a value, so that tests can use their own.
struct Environment: Sendable {
    private let values: [String: String]
    /// Prefix of `/etc`, `/usr` and `/var` in the paths of configuration files.
    let systemRoot: String
    let userID: UInt32

    init(_ values: [String: String], systemRoot: String = "", userID: UInt32 = geteuid()) {
        self.values = values
        self.systemRoot = systemRoot
        self.userID = userID
    }

    /// The current environment of the process.
    static var ofProcess: Environment {
        var values: [String: String] = [:]
        var entry = environ
        while let line = entry.pointee {
            let text = String(cString: line)
            entry += 1
            guard let sign = text.firstIndex(of: "=") else { continue }
            // The first of two with the same name counts, as for getenv(3).
            let name = String(text[..<sign])
            if values[name] == nil { values[name] = String(text[text.index(after: sign)...]) }
        }
        return Environment(values)
    }

    /// Nil if unset or empty.
    subscript(name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    /// `NAME=value` lines for a child process.
    var lines: [String] { values.map { "\($0)=\($1)" } }
}
