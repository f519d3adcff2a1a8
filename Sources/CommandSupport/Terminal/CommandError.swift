/// A failure that a command itself detects.
package struct CommandError: Error, CustomStringConvertible {
    package var description: String
    package var code: ErrorCode

    package init(_ description: String, code: ErrorCode = .failed) {
        self.description = description
        self.code = code
    }
}

/// Ends a command with exit status 2: the data that it checked are damaged.
package struct DamageFound: Error {
    package var message: String?

    package init(message: String? = nil) { self.message = message }
}
