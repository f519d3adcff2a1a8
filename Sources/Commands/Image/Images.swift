import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Images: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "images", abstract: "List images.",
        discussion: """
            SIZE is that of the layers' blobs. DISK SIZE is what the image's objects take in the repository, also those that other images share; \
            see `cfsoci df`. If an index has the name, PLATFORMS are those of its images that are stored. Times are in UTC. After the command's name, -q prints names only, one a line.
            """,
        aliases: ["list"])

    @Flag(help: "Print whole digests and times.")
    var noTrunc = false

    @OptionGroup var filters: FilterOptions

    @Option(
        help: ArgumentHelp(
            "The order: name, repository, tag, id, created, pulled, last-used, size or disk-size. The newest and largest come first.",
            valueName: "key"))
    var sort: String?

    @OptionGroup var form: FormatOptions

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        _ = try filters.filters()
        _ = try order()
        _ = try fields()
    }

    private func order() throws -> ImageOrder {
        guard let sort else { return .name }
        if let order = ImageOrder(rawValue: sort) { return order }
        let known = ImageOrder.allCases.map(\.rawValue).joined(separator: ", ")
        throw ValidationError("--sort: unknown key \"\(sort)\"; known are \(known)")
    }

    private func fields() throws -> [String]? { try form.fields(of: ImageTable.fields, json: json) }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let selection = try ImageSelection(filters.filters(), in: store.images)
        let order = try order()
        let (all, broken) = try store.images.records(dangling: selection.wantsDangling)
        for image in broken { Output.error("\(Output.printable(image.name)): \(image.reason)", .damaged, status: 2) }
        let uses = try uses(store, isNeeded: selection.needsUses)
        let found = all.filter { record in selection.contains(record) { uses?.uses(of: record.imageIDs).isEmpty == false } }
        let printsNames = global.printsNamesOnly && !json && form.format == nil
        let sizes = printsNames && order != .diskSize ? DiskSizes() : try DiskSizes(found, store)
        let records = order.sort(found) { sizes[$0]?.diskBytes }
        if printsNames {
            for record in records { try Self.print(name: record.name) }
        } else {
            let table = ImageTable(images: records, truncates: !noTrunc, uses: uses, sizes: sizes)
            if let fields = try fields() { try FormatOptions.show(fields, table.documents) } else { try table.show(asJSON: json) }
        }
        if !broken.isEmpty { throw DamageFound(message: "\(broken.count) images cannot be read; `cfsoci fsck` has details") }
    }

    /// Nil if the system does not tell what is in use.
    private func uses(_ store: Store, isNeeded: Bool) throws -> ImageUses? {
        do {
            return try store.repository.imageUses()
        } catch {
            if isNeeded { throw error }
            global.warn("cannot tell which images are in use: \(describe(error))")
            return nil
        }
    }

    /// A script gets the bytes of the name, so that it can pass them back.
    private static func print(name: ByteString) throws {
        if Output.outputIsTerminal { return try Output.print(Output.printable(name)) }
        try Output.write(name.bytes + [UInt8(ascii: "\n")])
    }
}

/// What the objects of images take.
struct DiskSizes {
    private var byManifest: [ContentDigest: SpaceUse] = [:]
    private var byImage: [ObjectID: SpaceUse] = [:]

    init() {}

    init(_ records: [ImageRecord], _ store: Store) throws {
        let (manifests, images) = try store.images.space(
            ofManifests: records.compactMap { $0.manifestDigest ?? $0.index?.digest },
            images: records.filter { $0.kind == .directory }.compactMap(\.imageID))
        (byManifest, byImage) = (manifests, images)
    }

    subscript(_ record: ImageRecord) -> SpaceUse? {
        if let digest = record.manifestDigest ?? record.index?.digest { return byManifest[digest] }
        return record.imageID.flatMap { byImage[$0] }
    }
}

struct ImageTable: CommandReport {
    var images: [ImageRecord]
    var truncates: Bool
    /// Nil if it is unknown what is in use.
    var uses: ImageUses?
    var sizes: DiskSizes

    var lines: [String] {
        guard !images.isEmpty else { return ["No images"] }
        let titles = [
            "NAME", "DIGEST", "ARCH", "LAYERS", "SIZE", "DISK SIZE", "IMAGE ID", "CREATED", "PULLED", "LAST USED", "REFS",
        ]
        // Columns that most repositories do not need.
        var more: [(title: String, cells: [String])] = []
        if images.contains(where: { $0.index != nil }) { more.append(("PLATFORMS", images.map { $0.index.map(platforms) ?? "-" })) }
        let used = images.map { image in uses?.uses(of: image.imageIDs) ?? [] }
        if used.contains(where: { !$0.isEmpty }) {
            let cells = used.map { uses in
                let kinds = ImageUse.Kind.allCases.filter { kind in uses.contains { $0.kind == kind } }
                return kinds.isEmpty ? "-" : kinds.map(\.rawValue).joined(separator: ",")
            }
            more.append(("IN USE", cells))
        }
        let rows = images.enumerated().map { index, image in row(image) + more.map { $0.cells[index] } }
        return [table(titles + more.map(\.title), rows)]
    }

    /// The stored platforms, and how many manifests of the index are not stored.
    private func platforms(_ index: IndexSummary) -> String {
        var names: [String] = []
        for manifest in index.manifests where manifest.isStored {
            guard let name = manifest.platform?.description, !names.contains(name) else { continue }
            names.append(name)
        }
        let missing = index.manifests.count { !$0.isStored }
        let list = names.isEmpty ? "-" : Output.printable(ByteString(names.joined(separator: ",")))
        return missing == 0 ? list : list + " (\(missing) missing)"
    }

    /// The members of each document.
    static let fields = [
        "name", "manifestDigest", "configDigest", "imageId", "isContainer", "architecture", "os", "variant", "created", "size",
        "layerCount",
        "referrerCount", "index", "inUse", "pulled", "lastUsed", "diskSize",
    ]

    var json: JSONValue { ["images": .array(documents)] }

    var documents: [JSONValue] {
        images.map { image in
            var document = Self.document(image)
            document["inUse"] = uses.map { .array($0.uses(of: image.imageIDs).map(\.json)) } ?? .null
            document["pulled"] = .text(image.pulled)
            document["lastUsed"] = .text(image.lastUsed)
            document["diskSize"] = sizes[image].map { JSONValue($0.diskBytes) } ?? .null
            return document
        }
    }

    private func row(_ image: ImageRecord) -> [String] {
        let isDirectory = image.kind == .directory
        return [
            image.kind == .dangling ? "<none>" : Output.printable(image.name),
            (image.manifestDigest ?? image.index?.digest).map(short) ?? short(image.imageID), kind(image),
            isDirectory || image.kind == .index ? "-" : "\(image.layerCount)", humanBytes(image.size),
            sizes[image].map { humanBytes($0.diskBytes) } ?? "-",
            short(image.imageID), time(image.createdTime), time(image.pulled), time(image.lastUsed),
            isDirectory ? "-" : "\(image.referrerCount)",
        ]
    }

    private func kind(_ image: ImageRecord) -> String {
        switch image.kind {
        case .directory: "directory"
        case .index: "index"
        case .tag, .dangling: image.isContainer ? Output.printable(ByteString(image.architecture)) : "artifact"
        }
    }

    private func short(_ digest: ContentDigest) -> String { truncates ? String(digest.hex.prefix(12)) : digest.description }

    private func short(_ id: ObjectID?) -> String {
        guard let id else { return "-" }
        return truncates ? String(id.hex.prefix(12)) : id.hex
    }

    /// `2026-11-21 04:33`, or all of it.
    private func time(_ time: Timestamp?) -> String {
        guard let time else { return "-" }
        guard truncates else { return time.description }
        let text = Timestamp(seconds: time.seconds).description
        return text.prefix(10) + " " + text.dropFirst(11).prefix(5)
    }

    private static func document(_ image: ImageRecord) -> JSONValue {
        [
            "name": .string(image.name.jsonText), "manifestDigest": .text(image.manifestDigest),
            "configDigest": .text(image.configDigest), "imageId": .text(image.imageID?.hex), "isContainer": .bool(image.isContainer),
            "architecture": .string(image.architecture), "os": .string(image.os), "variant": .text(image.variant),
            "created": .text(image.created), "size": JSONValue(image.size), "layerCount": .count(image.layerCount),
            "referrerCount": .count(image.referrerCount), "index": image.index?.json ?? .null,
        ]
    }
}

extension IndexSummary {
    var json: JSONValue {
        [
            "digest": .text(digest), "mediaType": .string(mediaType), "complete": .bool(isComplete),
            "manifests": .array(
                manifests.map { ["digest": .text($0.digest), "platform": .text($0.platform), "stored": .bool($0.isStored)] }),
        ]
    }
}
