public import ComposefsBytes
import ComposefsLinuxSystem

/// What a service allows, and what it is.
public struct ServiceOptions: Sendable {
    /// The release, as `org.varlink.service.GetInfo` replies it.
    public var version: String
    /// The user's repository; nil if the process has none.
    public var userRepository: ByteString?
    /// The system's repository.
    public var systemRepository: ByteString = "/sysroot/composefs"
    /// Whether a repository without fs-verity is refused.
    public var requiresVerity = false
    /// Whether a repository that another user could change is written to.
    public var trustsOwner = false
    /// The signature policy, which is read for each image; nil for that of the host.
    public var signaturePolicy: ByteString?
    /// Receives warnings about clients, on any thread.
    public var warn: @Sendable (String) -> Void = { _ in }

    /// The largest number of connections at the same time; others are closed at once.
    public var mostConnections = 32
    /// The largest message in bytes, in both directions: that of systemd.
    public var largestMessage = 16 << 20
    /// The largest number of descriptors of a call: what the kernel passes with one message.
    public var mostDescriptors = LocalConnection.mostDescriptors
    /// The largest number of handles of a connection.
    public var mostHandles = 64
    /// The largest number of layers that are being sent, by all connections.
    public var mostTransfers = 64
    /// How long a message may take from its first byte to its last, and how long a client that reads nothing is waited for.
    public var patience = Duration.seconds(30)
    /// How long to wait for a repository that another process has locked, and for other handles.
    public var lockPatience = Duration.seconds(10)
    /// How long running calls may take to end once the service is to end.
    public var endPatience = Duration.seconds(10)

    public init(version: String) { self.version = version }
}
