import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

struct History: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Show how an image was built, the last step first.",
        discussion: """
            The steps are those that the image's config records. SIZE is that of the layer's blob; a step that only changed the config has no \
            layer. Layers of which the config records no step come last, as steps without a time.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Flag(help: "Print whole commands and times.")
    var noTrunc = false

    @OptionGroup var form: FormatOptions

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws { _ = try fields() }

    private func fields() throws -> [String]? { try form.fields(of: ImageHistory.fields, json: json) }

    func run() throws {
        let images = try global.openStore(Self.rights, readOnly: true).images
        guard case .tagged(let name, let found) = try images.find(image) else {
            throw CommandError("\(image) was made from a directory: it has no history")
        }
        guard found.isContainer else { throw ImageStoreError.isArtifact(found.manifestDigest) }
        let history = ImageHistory(name: name, image: found, truncates: !noTrunc)
        if let fields = try fields() { return try FormatOptions.show(fields, history.steps.map(\.json)) }
        try history.show(asJSON: json)
    }
}

/// The steps of a build, the last one first.
private struct ImageHistory: CommandReport {
    static let fields = ["created", "createdBy", "author", "comment", "emptyLayer", "digest", "size"]

    var name: ByteString
    var manifestDigest: ContentDigest
    var steps: [HistoryStep]
    var truncates: Bool

    init(name: ByteString, image: StoredImage, truncates: Bool) {
        self.name = name
        self.truncates = truncates
        manifestDigest = image.manifestDigest
        steps = image.history.reversed()
    }

    var lines: [String] {
        guard !steps.isEmpty else { return ["No history"] }
        let rows = steps.map { step in
            [
                shown(step.created, 19), step.layer.map { humanBytes($0.size) } ?? "-",
                step.layer.map { truncates ? String($0.digest.hex.prefix(12)) : $0.digest.description } ?? "-",
                shown(step.createdBy, 60), shown(step.comment, 30),
            ]
        }
        return [table(["CREATED", "SIZE", "LAYER", "CREATED BY", "COMMENT"], rows)]
    }

    private func shown(_ text: String?, _ most: Int) -> String {
        guard let text, !text.isEmpty else { return "-" }
        let line = Output.printable(ByteString(text.replacing("\t", with: " ").replacing("\n", with: " ")))
        return truncates && line.count > most ? String(line.prefix(most - 1)) + "…" : line
    }

    var json: JSONValue {
        ["name": .string(name.jsonText), "manifestDigest": .text(manifestDigest), "history": .array(steps.map(\.json))]
    }
}

extension HistoryStep {
    fileprivate var json: JSONValue {
        [
            "created": .text(created), "createdBy": .text(createdBy), "author": .text(author), "comment": .text(comment),
            "emptyLayer": .bool(layer == nil), "digest": .text(layer?.digest), "size": layer.map { JSONValue($0.size) } ?? .null,
        ]
    }
}
