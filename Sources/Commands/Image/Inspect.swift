import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show an image's manifest, config, identifiers and referrers as JSON, and the index of the same name.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Flag(help: "The manifest's bytes as they were pulled.")
    var manifest = false

    @Flag(help: "The config's bytes as they were pulled.")
    var config = false

    @Flag(help: "The bytes of the index of this name as they were pulled.")
    var index = false

    @OptionGroup var global: GlobalOptions

    @Flag(help: "Print JSON (the default).")
    var json = false

    func validate() throws {
        guard !(json && (manifest || config || index)) else { throw ValidationError("--json excludes --manifest, --config and --index") }
        guard [manifest, config, index].count(where: { $0 }) <= 1 else {
            throw ValidationError("--manifest, --config and --index exclude each other")
        }
    }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        if index { return try Output.write(try store.images.openIndex(image).index.index.bytes) }
        let found: FoundImage
        do {
            found = try store.images.find(image)
        } catch ImageStoreError.onlyIndex where !manifest && !config {
            let (name, index) = try store.images.openIndex(image)
            return try Output.print(
                Self.document(name, try store.images.summary(of: index), referrers: try store.images.referrers(of: index.digest)))
        }
        switch found {
        case .tagged(let name, let found):
            if manifest { return try Output.write(found.manifest.bytes) }
            if config { return try Output.write(found.configBytes) }
            var document = try Self.document(name, found, referrers: try store.images.referrers(of: found.manifestDigest))
            if let index = try store.images.resolveIndex(name), index.name == name {
                document["index"] = try store.images.summary(of: try store.images.openIndex(name).index).json
            }
            try Output.print(document)
        case .named(let found):
            guard !manifest, !config else {
                throw CommandError("\(image) was made from a directory: it has no \(manifest ? "manifest" : "config")")
            }
            try Output.print(Self.document(found, try store.images.erofsImage(found.imageID).version))
        }
    }

    private static func document(_ name: ByteString, _ found: StoredImage, referrers: [ContentDigest]) throws -> JSONValue {
        var imageIDs: [(key: String, value: JSONValue)] = []
        if let id = found.imageID(.v1) { imageIDs.append(("v1", .string(id.hex))) }
        if let id = found.imageID(.v2) { imageIDs.append(("v2", .string(id.hex))) }
        let identifiers = found.layerIdentifiers
        let layers = found.manifest.layers.enumerated().map { index, layer -> JSONValue in
            [
                "diffId": found.isContainer && index < identifiers.count ? .text(identifiers[index]) : .null,
                "digest": .text(layer.digest), "mediaType": .string(layer.mediaType), "size": JSONValue(layer.size),
            ]
        }
        return [
            "name": .string(name.jsonText), "manifestDigest": .text(found.manifestDigest), "configDigest": .text(found.configDigest),
            "manifest": try JSONValue.parse(found.manifest.bytes),
            // The config of an artifact can have any format.
            "config": (try? JSONValue.parse(found.configBytes)) ?? .null, "imageIds": .object(JSONObject(imageIDs)),
            "bootImageIds": .object(JSONObject(found.bootImages.map { (key: $0.key, value: .string($0.id.hex)) })),
            "layers": .array(layers), "referrers": .texts(referrers), "index": .null,
        ]
    }

    /// The same members for an index whose name no image has.
    private static func document(_ name: ByteString, _ index: IndexSummary, referrers: [ContentDigest]) -> JSONValue {
        [
            "name": .string(name.jsonText), "manifestDigest": .null, "configDigest": .null, "manifest": .null, "config": .null,
            "imageIds": .object(JSONObject([])), "bootImageIds": .object(JSONObject([])), "layers": [], "referrers": .texts(referrers),
            "index": index.json,
        ]
    }

    /// The same members for an image that has only an EROFS image.
    private static func document(_ found: NamedImage, _ version: ErofsVersion) -> JSONValue {
        [
            "name": .string(found.name.jsonText), "manifestDigest": .null, "configDigest": .null, "manifest": .null, "config": .null,
            "imageIds": .object(JSONObject([(key: version == .v2 ? "v2" : "v1", value: .string(found.imageID.hex))])),
            "bootImageIds": .object(JSONObject([])), "layers": [], "referrers": [], "index": .null,
        ]
    }
}
