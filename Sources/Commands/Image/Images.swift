import ArgumentParser
import ComposefsBytes
import ComposefsOCI

struct Images: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the tagged images.", aliases: ["list"])

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print digests in full.")
    var noTrunc = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (images, broken) = try global.openStore(readOnly: true).images.list()
        for image in broken { Output.error("\(image.name): \(image.reason)") }
        if json {
            try Output.print(["images": .array(images.map(Self.json))])
        } else if images.isEmpty {
            try Output.print("No images")
        } else {
            try Output.print(
                table(
                    ["NAME", "DIGEST", "ARCH", "LAYERS", "SIZE", "REFS"],
                    images.map { image in
                        [
                            Output.printable(image.name),
                            noTrunc ? image.manifestDigest.description : String(image.manifestDigest.hex.prefix(12)),
                            image.isContainer ? Output.printable(ByteString(image.architecture)) : "artifact", "\(image.layerCount)",
                            humanBytes(image.size),
                            "\(image.referrerCount)",
                        ]
                    }))
        }
        if !broken.isEmpty { throw DamageFound(message: "\(broken.count) images cannot be read; `cfsoci fsck` tells more") }
    }

    static func json(_ image: ImageSummary) -> JSONValue {
        [
            "name": .string(image.name.jsonText), "manifestDigest": .string(image.manifestDigest.description),
            "configDigest": .string(image.configDigest.description), "imageId": image.imageID.map { .string($0.hex) } ?? .null,
            "isContainer": .bool(image.isContainer), "architecture": .string(image.architecture), "os": .string(image.os),
            "variant": image.variant.map { .string($0) } ?? .null, "created": image.created.map { .string($0) } ?? .null,
            "size": JSONValue(image.size), "layerCount": .integer(Int64(image.layerCount)),
            "referrerCount": .integer(Int64(image.referrerCount)),
        ]
    }
}
