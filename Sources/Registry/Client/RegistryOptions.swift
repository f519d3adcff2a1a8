public import ComposefsBytes
public import ComposefsOCIModel
public import ComposefsTransports

/// How a `RegistryClient` connects and authenticates.
public struct RegistryOptions: Sendable {
    /// True requires TLS with a trusted certificate. False accepts any certificate, and plain HTTP if the server speaks no TLS. Nil, the
    /// default, is true for all hosts but this machine (`localhost`, 127.0.0.0/8, `[::1]`), which may speak plain HTTP.
    public var tlsVerify: Bool?
    /// Used for every registry instead of stored credentials.
    public var credentials: RegistryCredentials?
    /// Whether auth files and credential helpers are used. If it is false and `credentials` is nil, access is anonymous.
    public var usesStoredCredentials = true
    /// An auth file in the format of containers-auth.json(5), instead of the default ones. It has to exist.
    public var authFile: ByteString?
    /// A PEM file of certificate authorities instead of the system's; nil uses `SSL_CERT_FILE` if it is set.
    public var certificateAuthorities: String?
    /// A directory with the certificates for every registry, instead of `certs.d`: `*.crt` authorities in addition to the system's,
    /// `NAME.cert` and `NAME.key` for the client. If a server rejects one of several client certificates, the next one by name is tried.
    public var certificateDirectory: ByteString?
    /// A registries.conf instead of the default ones and their drop-ins. It has to exist.
    public var registriesConfiguration: ByteString?
    /// Chooses one of several references that a short name without an alias may stand for; nil chooses none. Without this closure all are
    /// tried in order, or none if `short-name-mode` is `enforcing`.
    public var chooseRegistry: (@Sendable ([RegistryReference]) -> RegistryReference?)?
    /// Whether the answer of `chooseRegistry` is recorded when the image has been found there. Container tools read and write the same
    /// file: `/var/cache/containers/short-name-aliases.conf` for root, `$XDG_CACHE_HOME/containers/short-name-aliases.conf` for others.
    public var recordsChoices = true
    /// Receives one-line warnings about problems that did not end the operation: a mirror that sent wrong content, a choice that could not
    /// be recorded. Called on any thread.
    public var warn: (@Sendable (String) -> Void)?
    /// Receives what the client does: which endpoints and credentials it uses, and each request. Called on any thread.
    public var observe: (@Sendable (RegistryEvent) -> Void)?
    /// Bounds name resolution, the TCP connection and the TLS handshake together.
    public var connectTimeout = Duration.seconds(30)
    /// A transfer that moves fewer than 1 KiB in this time, in either direction, is ended (and tried again).
    public var stallTimeout = Duration.seconds(60)
    /// The minimum rate of a blob in bytes per second, averaged over `minimumRateWindow`; 0 disables it. A slower download is ended and not
    /// tried again except from another endpoint: a server that sends just enough not to stall could hold a pull forever. Only the time
    /// spent waiting for bytes counts, on all connections of the blob together.
    public var minimumRate: UInt64 = 1024
    /// Long enough to survive a temporary loss of the network: meanwhile `retry` decides how often the download is tried again.
    public var minimumRateWindow = Duration.seconds(300)
    /// Bounds the time from the last byte sent to the response, and the time to read a whole manifest or token. Blobs may take longer; see
    /// `minimumRate`.
    public var requestTimeout = Duration.seconds(120)
    /// The largest manifest or index, in bytes. A pull uses the limit of its `PullOptions`.
    public var manifestLimit = 4 << 20
    /// Whether blobs of more than 1 MiB share HTTP/2 connections too, as everything else does. That needs fewer connections, but a blob
    /// whose reader is slower than the network then needs up to 32 MiB of memory instead of 1 MiB.
    public var multiplexesBlobs = false
    /// Whether a foreign layer that its registry does not have is fetched from the URLs in its descriptor: from hosts that the image's
    /// author chooses, without credentials. Digest and size are verified as always.
    public var fetchesForeignLayers = false
    public var retry = RetryPolicy()
    /// The User-Agent field. Programs append their version: `cfsoci/1.0`.
    public var userAgent = "cfsoci"

    public init() {}
}
