public import ComposefsHashing
public import ComposefsJSON

/// An image's configuration (image-spec config.md). What a container runtime reads of it is kept; history is not.
public struct ImageConfig: Hashable, Sendable {
    /// The document as it was received; what its digest is of.
    public let bytes: [UInt8]
    /// Empty where the document does not say.
    public let architecture: String
    /// Empty where the document does not say.
    public let os: String
    public let variant: String?
    public let osVersion: String?
    /// RFC 3339, as the document has it.
    public let created: String?
    public let author: String?
    /// The digest of each layer's uncompressed archive, the lowest first.
    public let diffIDs: [ContentDigest]
    public let runtime: RuntimeConfig

    public var platform: Platform { Platform(os: os, architecture: architecture, variant: variant, osVersion: osVersion) }

    public init(parsing bytes: [UInt8]) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "config", limit: ImageLimits.configBytes)
        self.bytes = bytes
        architecture = try fields.string("architecture") ?? ""
        os = try fields.string("os") ?? ""
        variant = try fields.string("variant")
        osVersion = try fields.string("os.version")
        created = try fields.string("created")
        author = try fields.string("author")
        let rootfs = try fields.requiredFields("rootfs")
        let type = try rootfs.requiredString("type")
        guard type == "layers" else { throw rootfs.malformed("type", "is \(quoted(type)), not \"layers\"") }
        var diffIDs: [ContentDigest] = []
        for (index, text) in (try rootfs.strings("diff_ids") ?? []).enumerated() {
            guard let digest = ContentDigest(text) else {
                throw rootfs.malformed("diff_ids[\(index)]", "is \(quoted(text)), no sha256, sha384 or sha512 digest")
            }
            diffIDs.append(digest)
        }
        self.diffIDs = diffIDs
        runtime = if let runtime = try fields.fields("config") { try RuntimeConfig(runtime) } else { RuntimeConfig() }
    }
}

/// How a container of the image is run.
public struct RuntimeConfig: Hashable, Sendable {
    /// `NAME=VALUE`, in the document's order.
    public var environment: [String] = []
    public var command: [String]?
    public var entrypoint: [String]?
    public var user: String?
    public var workingDirectory: String?
    /// `PORT/tcp`, `PORT/udp` or `PORT`.
    public var exposedPorts: [String] = []
    public var volumes: [String] = []
    public var labels: [String: String] = [:]
    public var stopSignal: String?
    /// As the document has it (docker image spec): `Test`, `Interval` and so on, durations in nanoseconds.
    public var healthcheck: JSONValue?

    public init() {}

    package init(_ fields: DocumentFields) throws(OCIError) {
        environment = try fields.strings("Env") ?? []
        command = try fields.strings("Cmd")
        entrypoint = try fields.strings("Entrypoint")
        user = try fields.string("User")
        workingDirectory = try fields.string("WorkingDir")
        exposedPorts = try fields.keys("ExposedPorts") ?? []
        volumes = try fields.keys("Volumes") ?? []
        labels = try fields.map("Labels")
        stopSignal = try fields.string("StopSignal")
        healthcheck = (try fields.fields("Healthcheck")?.object).map { .object($0) }
    }
}
