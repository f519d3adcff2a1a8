import ComposefsBytes
import ComposefsFuzzSupport
import ComposefsRegistry

/// An auth file, and the answer of a credential helper: no trap, printable errors without the secret. A login is found again in what is written, and
/// not after the logout.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var choices = Choices(start, count)
    let registry = choices.one(of: ["registry.example", "docker.io", "localhost:5000", "registry.example/team", "[::1]:5000", "a.b/c/d"])
    let bytes = choices.rest()
    _ = checkHelperOutput(bytes)
    do {
        let found = try checkAuthFile(bytes, registry: registry, user: "user", password: "a:b")
        precondition(found.isStable, "another document after writing")
        precondition(found.loggedIn == .password(user: "user", password: "a:b"), "the login is not found")
        if case .password(user: "user", password: "a:b") = found.loggedOut {
            // Only if the file says so elsewhere, in an entry of its own.
            precondition(String(decoding: bytes, as: UTF8.self).contains("auths"), "the login is still found")
        }
    } catch {
        requirePrintable(error)
    }
    return 0
}
