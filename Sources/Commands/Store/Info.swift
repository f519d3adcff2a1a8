import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct Info: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "info", abstract: "Show the repository's properties and what it holds.")

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        try RepositoryInfo(try global.openStore(Self.rights, readOnly: true)).show(asJSON: json)
    }
}

private struct RepositoryInfo: CommandReport {
    private var repository: Repository
    private var objects: Int
    private var streams: [ByteString]
    private var images: Int
    private var tags: Int
    private var indexes: Int
    private var names: Int
    private var referrers: Int

    init(_ store: Store) throws {
        repository = store.repository
        objects = try repository.objectIDs().count
        streams = try repository.streamNames()
        images = try repository.imageIDs().count
        tags = try store.images.tags().count
        indexes = try store.images.namedIndexes().count
        names = try repository.imageReferences().count
        referrers = try repository.streamReferences(under: ReferrerRecord.directory).count
    }

    private func count(_ prefix: ByteString) -> Int { streams.count { $0.hasPrefix(prefix) } }

    private var manifests: Int { count(StreamName.manifestPrefix) }
    private var configs: Int { count(StreamName.configPrefix) }
    private var layers: Int { count(StreamName.layerPrefix) }
    private var blobs: Int { count(StreamName.blobPrefix) }
    private var algorithm: String { RepositoryMetadata.name(of: repository.algorithm) }
    private var formats: [Int64] { repository.erofsFormats.all.map { Int64($0.rawValue) } }

    var lines: [String] {
        [
            "path       \(Output.printable(repository.path))", "algorithm  \(algorithm)",
            "verity     \(repository.isSecure ? "required" : "not required (insecure)")", "version    \(repository.metadata.version)",
            "formats    EROFS \(formats.map { "V\($0)" }.joined(separator: ", "))", "objects    \(objects)",
            "streams    \(streams.count) (\(manifests) manifests, \(configs) configs, \(layers) layers, \(blobs) blobs)",
            "images     \(images)", "tags       \(tags)", "indexes    \(indexes)", "names      \(names)", "referrers  \(referrers)",
            "program    cfsoci \(Version.text)",
        ]
    }

    var json: JSONValue {
        let metadata = repository.metadata
        return [
            "path": .string(repository.path.jsonText), "algorithm": .string(algorithm), "verity": .bool(repository.isSecure),
            "version": .integer(metadata.version), "erofsVersions": .array(formats.map { .integer($0) }),
            "features": [
                "compatible": .texts(metadata.compatible), "readOnlyCompatible": .texts(metadata.readOnlyCompatible),
                "incompatible": .texts(metadata.incompatible),
            ],
            "counts": [
                "objects": .count(objects), "streams": .count(streams.count), "manifests": .count(manifests), "configs": .count(configs),
                "layers": .count(layers), "blobs": .count(blobs), "images": .count(images), "tags": .count(tags),
                "indexes": .count(indexes), "names": .count(names),
                "referrers": .count(referrers),
            ],
            "program": ["name": "cfsoci", "version": .string(Version.text)],
        ]
    }
}
