public import ComposefsBytes
public import ComposefsOCIModel
public import ComposefsTransports

/// How a `RegistryClient` connects and who it is.
public struct RegistryOptions: Sendable {
    /// True: TLS with a trusted certificate, always. False: any certificate, and plain HTTP where the server has no TLS. Nil, the default, is
    /// true for all hosts but this machine (`localhost`, 127.0.0.0/8, `[::1]`): there a server without TLS is spoken to in plain HTTP.
    public var tlsVerify: Bool?
    /// Used for every registry, before any file is looked at.
    public var credentials: RegistryCredentials?
    /// Whether auth files and credential helpers are looked at; false is anonymous where `credentials` is nil.
    public var usesStoredCredentials = true
    /// An auth file as container tools write it, instead of the usual places. It has to exist.
    public var authFile: ByteString?
    /// A PEM file of certificate authorities instead of the system's; nil takes `SSL_CERT_FILE` where that is set.
    public var certificateAuthorities: String?
    /// A directory with the certificates of every registry instead of `certs.d`: `*.crt` authorities besides the system's, `NAME.cert` and
    /// `NAME.key` for the client. Of several such pairs the next one by name is shown where a server refuses one.
    public var certificateDirectory: ByteString?
    /// A registries.conf instead of those in the usual places, and without their drop-ins. It has to exist.
    public var registriesConfiguration: ByteString?
    /// Asks somebody which of several registries a short name without an alias means; nil in return is none of them. Without it all are tried
    /// in order, or with `short-name-mode = "enforcing"` none.
    public var chooseRegistry: (@Sendable ([RegistryReference]) -> RegistryReference?)?
    /// Whether what `chooseRegistry` answers is recorded once the image was found there, as the container tools do, for them too:
    /// `/var/cache/containers/short-name-aliases.conf` of root, `$XDG_CACHE_HOME/containers/short-name-aliases.conf` of others.
    public var recordsChoices = true
    /// Is told, in one line, of what went wrong and was got over: a mirror that sent something else than it was asked for, a choice that could
    /// not be recorded. From any thread.
    public var warn: (@Sendable (String) -> Void)?
    /// For the name, the TCP connection and the TLS handshake together.
    public var connectTimeout = Duration.seconds(30)
    /// A transfer that moves less than 1 KiB in this time, either way, is broken off (and tried again).
    public var stallTimeout = Duration.seconds(60)
    /// How many bytes of a blob have to come a second, averaged over `minimumRateWindow`; 0 asks for nothing. One that comes more slowly is
    /// given up, and not tried again but from a mirror: a server that sends just enough not to stall could hold a pull for ever. Only the time
    /// counts in which bytes were waited for, whatever connections they came on.
    public var minimumRate: UInt64 = 1024
    /// Long enough that a network may be gone for a while: `retry` decides how often it is tried again meanwhile.
    public var minimumRateWindow = Duration.seconds(300)
    /// For an answer to begin, counted from the last byte that was sent, and for a manifest or token to come as a whole; blobs may take as long
    /// as they move on, see `minimumRate`.
    public var requestTimeout = Duration.seconds(120)
    /// The largest manifest or index, in bytes. A pull takes that of its `PullOptions`.
    public var manifestLimit = 4 << 20
    /// Whether blobs of more than 1 MiB are HTTP/2 streams of one connection too, as everything else is. Fewer connections, but a blob whose
    /// reader is slower than the network then takes up to 32 MiB of memory instead of 1 MiB.
    public var multiplexesBlobs = false
    /// Whether a foreign layer that its registry has not got is fetched from the addresses in its manifest: from hosts of the image's maker's
    /// choice, without credentials. Digest and size are verified as always.
    public var fetchesForeignLayers = false
    public var retry = RetryPolicy()
    /// Programs append their version: `cfsoci/1.0`.
    public var userAgent = "cfsoci"

    public init() {}
}
