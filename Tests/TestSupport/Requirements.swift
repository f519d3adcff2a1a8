internal import ComposefsLinuxSystem
internal import Testing

/// Cancels the test, with the reason, if images cannot be mounted.
package func requireMounting() throws {
    guard Host.effectiveUserID == 0, Host.hasCapability(.systemAdmin) else { try Test.cancel("mounting needs root") }
    for type in ["erofs", "overlay"] as [StaticString] {
        do {
            _ = try FileSystemContext(type)
        } catch {
            try Test.cancel("this kernel has no \(type): \(error)")
        }
    }
}
