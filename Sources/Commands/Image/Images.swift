import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct Images: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the tagged images, and the images that create-image named.",
        discussion: "When an image is in use, the column IN USE shows how: mounted, booted, deployed or boot-entry.", aliases: ["list"])

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print digests in full.")
    var noTrunc = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let (tagged, broken) = try store.images.list()
        let (named, brokenNames) = try store.images.namedImages()
        for image in broken { Output.error("\(image.name): \(image.reason)") }
        for image in brokenNames { Output.error("\(image.name): \(image.reason)") }
        let rows =
            tagged.map { ListedImage.tagged($0) }
            + (try named.map { .named($0, size: try store.repository.objectSize($0.imageID) ?? 0) })
        var uses: ImageUses?
        do {
            uses = try store.repository.imageUses()
        } catch {
            global.note("warning: cannot tell which images are in use: \(describe(error))")
        }
        try ImageTable(images: rows.sorted { $0.name < $1.name }, truncatesDigests: !noTrunc, uses: uses).show(asJSON: json)
        let count = broken.count + brokenNames.count
        if count > 0 { throw DamageFound(message: "\(count) images cannot be read; `cfsoci fsck` has details") }
    }
}

/// One line of the list.
enum ListedImage {
    case tagged(ImageSummary)
    /// An EROFS image without manifest and layers, and its size.
    case named(NamedImage, size: UInt64)

    /// Of all EROFS images.
    var imageIDs: [ObjectID] {
        switch self {
        case .tagged(let image): image.imageIDs
        case .named(let image, _): [image.imageID]
        }
    }

    var name: ByteString {
        switch self {
        case .tagged(let image): image.name
        case .named(let image, _): image.name
        }
    }
}

struct ImageTable: CommandReport {
    var images: [ListedImage]
    var truncatesDigests: Bool
    /// Nil if it is unknown what is in use.
    var uses: ImageUses?

    var lines: [String] {
        guard !images.isEmpty else { return ["No images"] }
        let titles = ["NAME", "DIGEST", "ARCH", "LAYERS", "SIZE", "REFS"]
        let used = images.map { image in uses?.uses(of: image.imageIDs) ?? [] }
        guard used.contains(where: { !$0.isEmpty }) else { return [table(titles, images.map(row))] }
        let rows = zip(images, used).map { image, uses in
            let kinds = ImageUse.Kind.allCases.filter { kind in uses.contains { $0.kind == kind } }
            return row(image) + [kinds.isEmpty ? "-" : kinds.map(\.rawValue).joined(separator: ",")]
        }
        return [table(titles + ["IN USE"], rows)]
    }

    var json: JSONValue {
        [
            "images": .array(
                images.map { image in
                    var document = Self.document(image)
                    document["inUse"] = uses.map { .array($0.uses(of: image.imageIDs).map(\.json)) } ?? .null
                    return document
                })
        ]
    }

    private func row(_ image: ListedImage) -> [String] {
        switch image {
        case .tagged(let image):
            [
                Output.printable(image.name),
                truncatesDigests ? String(image.manifestDigest.hex.prefix(12)) : image.manifestDigest.description,
                image.isContainer ? Output.printable(ByteString(image.architecture)) : "artifact", "\(image.layerCount)",
                humanBytes(image.size), "\(image.referrerCount)",
            ]
        case .named(let image, let size):
            [
                Output.printable(image.name), truncatesDigests ? String(image.imageID.hex.prefix(12)) : image.imageID.hex, "directory", "-",
                humanBytes(size), "-",
            ]
        }
    }

    private static func document(_ image: ListedImage) -> JSONValue {
        switch image {
        case .tagged(let image):
            [
                "name": .string(image.name.jsonText), "manifestDigest": .text(image.manifestDigest),
                "configDigest": .text(image.configDigest), "imageId": .text(image.imageID?.hex), "isContainer": .bool(image.isContainer),
                "architecture": .string(image.architecture), "os": .string(image.os), "variant": .text(image.variant),
                "created": .text(image.created), "size": JSONValue(image.size), "layerCount": .count(image.layerCount),
                "referrerCount": .count(image.referrerCount),
            ]
        case .named(let image, let size):
            [
                "name": .string(image.name.jsonText), "manifestDigest": .null, "configDigest": .null, "imageId": .string(image.imageID.hex),
                "isContainer": true, "architecture": "", "os": "", "variant": .null, "created": .null, "size": JSONValue(size),
                "layerCount": 0, "referrerCount": 0,
            ]
        }
    }
}
