import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show an image's manifest, config, identifiers and referrers as JSON.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Flag(help: "The manifest's bytes as they were pulled.")
    var manifest = false

    @Flag(help: "The config's bytes as they were pulled.")
    var config = false

    @OptionGroup var global: GlobalOptions

    @Flag(help: "Print JSON (the default).")
    var json = false

    func validate() throws {
        guard !(json && (manifest || config)) else { throw ValidationError("--json excludes --manifest and --config") }
        guard !(manifest && config) else { throw ValidationError("--manifest and --config exclude each other") }
    }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        switch try store.images.find(image) {
        case .tagged(let name, let found):
            if manifest { return try Output.write(found.manifest.bytes) }
            if config { return try Output.write(found.configBytes) }
            try Output.print(try Self.document(name, found, referrers: try store.images.referrers(of: found.manifestDigest)))
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
            "layers": .array(layers), "referrers": .texts(referrers),
        ]
    }

    /// The same members for an image that has only an EROFS image.
    private static func document(_ found: NamedImage, _ version: ErofsVersion) -> JSONValue {
        [
            "name": .string(found.name.jsonText), "manifestDigest": .null, "configDigest": .null, "manifest": .null, "config": .null,
            "imageIds": .object(JSONObject([(key: version == .v2 ? "v2" : "v1", value: .string(found.imageID.hex))])),
            "bootImageIds": .object(JSONObject([])), "layers": [], "referrers": [],
        ]
    }
}
