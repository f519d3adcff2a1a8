import ArgumentParser
import ComposefsOCI

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show an image's manifest, config, identifiers and referrers as JSON.")

    @Argument(help: "The image.")
    var image: ByteString

    @Flag(help: "The manifest's bytes as they were pulled.")
    var manifest = false

    @Flag(help: "The config's bytes as they were pulled.")
    var config = false

    @OptionGroup var global: GlobalOptions

    @Flag(help: "Print JSON, as it does anyway.")
    var json = false

    func validate() throws {
        guard !(json && (manifest || config)) else { throw ValidationError("--json excludes --manifest and --config") }
        guard !(manifest && config) else { throw ValidationError("--manifest and --config exclude each other") }
    }

    func run() throws {
        let store = try global.openStore(readOnly: true)
        let (name, found) = try store.images.open(image)
        if manifest { return try Output.write(found.manifest.bytes) }
        if config { return try Output.write(found.configBytes) }
        var imageIDs: [(key: String, value: JSONValue)] = []
        if let id = found.imageID(.v1) { imageIDs.append(("v1", .string(id.hex))) }
        if let id = found.imageID(.v2) { imageIDs.append(("v2", .string(id.hex))) }
        let identifiers = found.layerIdentifiers
        try Output.print([
            "name": .string(name.jsonText), "manifestDigest": .string(found.manifestDigest.description),
            "configDigest": .string(found.configDigest.description), "manifest": try JSONValue.parse(found.manifest.bytes),
            // An artifact's config may be anything.
            "config": (try? JSONValue.parse(found.configBytes)) ?? .null, "imageIds": .object(JSONObject(imageIDs)),
            "bootImageIds": .object(JSONObject(found.bootImages.map { (key: $0.key, value: .string($0.id.hex)) })),
            "layers": .array(
                found.manifest.layers.enumerated().map { index, layer in
                    [
                        "diffId": found.isContainer && index < identifiers.count ? .string(identifiers[index].description) : .null,
                        "digest": .string(layer.digest.description), "mediaType": .string(layer.mediaType), "size": JSONValue(layer.size),
                    ]
                }), "referrers": .array(try store.images.referrers(of: found.manifestDigest).map { .string($0.description) }),
        ])
    }
}
