/// The kind of a failure, as programs see it: the name in an `error` event. Names are promised to scripts; later releases may add some.
package enum ErrorCode: String, Sendable, CaseIterable {
    case failed
    /// What was stored or received is not what it should be.
    case damaged
    case noSuchImage = "no-such-image"
    case noSuchRepository = "no-such-repository"
    /// The repository keeps no disk of the image.
    case noSuchDisk = "no-such-disk"
    case unauthorized
    /// A registries.conf blocks the registry.
    case blocked
    /// A seal is required, and the image has none, or not the right one.
    case notSealed = "not-sealed"
    /// The signature policy does not accept the image.
    case refused = "refused-by-policy"
    case unreachable
    /// Another process uses the repository or the mount.
    case busy
    /// The image is mounted, booted or deployed.
    case inUse = "in-use"
    case noSpace = "no-space"
    /// A directory with other files was to become a repository.
    case notEmpty = "not-empty"
    case usage
    case interrupted
}
