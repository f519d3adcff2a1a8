#if compiler(<6.3)
    package import Testing

    /// The reason why a test cannot run here.
    package struct CannotRunHere: Error, CustomStringConvertible {
        package let description: String
    }

    extension Test {
        /// Swift Testing can cancel a running test since Swift 6.3. With older versions, the test fails with the reason.
        package static func cancel(_ comment: Comment? = nil) throws -> Never {
            throw CannotRunHere(description: "cannot run here: \(comment?.rawValue ?? "no reason given")")
        }
    }
#endif
