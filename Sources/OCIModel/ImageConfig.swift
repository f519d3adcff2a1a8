public import ComposefsHashing
public import ComposefsJSON

/// An image's config (image-spec, config.md), with the members that container runtimes use, without history.
///
/// Only the list of layers is read strictly. Any other member of the wrong type counts as absent.
public struct ImageConfig: Hashable, Sendable {
    /// The document as received. Its digest is computed from these bytes.
    public let bytes: [UInt8]
    /// Empty if the document does not specify it.
    public let architecture: String
    /// Empty if the document does not specify it.
    public let os: String
    public let variant: String?
    public let osVersion: String?
    /// RFC 3339, as in the document.
    public let created: String?
    public let author: String?
    /// The diff IDs, lowest layer first.
    public let diffIDs: [ContentDigest]
    public let runtime: RuntimeConfig

    public var platform: Platform { Platform(os: os, architecture: architecture, variant: variant, osVersion: osVersion) }

    /// Whether a document looks like an image's config.
    package static func isLikely(_ bytes: [UInt8]) -> Bool {
        guard let rootfs = (try? DocumentFields(parsing: bytes, document: "config", limit: ImageLimits.configBytes))?.object("rootfs")
        else {
            return false
        }
        return rootfs.text("type") == "layers" || rootfs.has("diff_ids")
    }

    public init(parsing bytes: [UInt8]) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "config", limit: ImageLimits.configBytes)
        self.bytes = bytes
        architecture = fields.text("architecture") ?? ""
        os = fields.text("os") ?? ""
        variant = fields.text("variant")
        osVersion = fields.text("os.version")
        created = fields.text("created")
        author = fields.text("author")
        let rootfs = try fields.requiredFields("rootfs")
        if let type = try rootfs.string("type"), type != "layers" {
            throw rootfs.malformed("type", .notLayers(type))
        }
        var diffIDs: [ContentDigest] = []
        for (index, text) in (try rootfs.strings("diff_ids") ?? []).enumerated() {
            guard let digest = ContentDigest(text) else {
                throw rootfs.malformed("diff_ids[\(index)]", .notDigest(text))
            }
            diffIDs.append(digest)
        }
        self.diffIDs = diffIDs
        runtime = fields.object("config").map { RuntimeConfig($0) } ?? RuntimeConfig()
    }
}

/// The runtime configuration of an image.
public struct RuntimeConfig: Hashable, Sendable, Codable {
    /// `NAME=VALUE`, in the order of the document.
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
    /// As in the document (docker image spec): `Test`, `Interval` and so on; durations are in nanoseconds.
    public var healthcheck: JSONValue?

    public init() {}

    package init(_ fields: DocumentFields) {
        environment = fields.list("Env") ?? []
        command = fields.list("Cmd")
        entrypoint = fields.list("Entrypoint")
        user = fields.text("User")
        workingDirectory = fields.text("WorkingDir")
        exposedPorts = fields.names("ExposedPorts") ?? []
        volumes = fields.names("Volumes") ?? []
        labels = fields.texts("Labels")
        stopSignal = fields.text("StopSignal")
        healthcheck = (fields.object("Healthcheck")?.object).map { .object($0) }
    }
}
