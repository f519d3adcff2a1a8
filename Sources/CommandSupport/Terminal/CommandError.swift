/// A failure that a command itself detects.
package struct CommandError: Error, CustomStringConvertible {
    package var description: String
    package var code: ErrorCode

    package init(_ description: String, code: ErrorCode = .failed) {
        self.description = description
        self.code = code
    }
}
