import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct ListDisks: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the disks that the repository keeps.",
        discussion: """
            With -q, print paths only: for each disk that of its file or descriptor, or those of its layers.

            Example: cfsoci disk list alpine
            """, aliases: ["ls"])

    @Argument(help: "Only those of this image.", completion: .imageName)
    var image: ByteString?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let entries = try ImageDisks(store.images).list(of: try image.map { try store.images.resolve($0).manifestDigest })
        let names = Dictionary(grouping: try store.images.tags(), by: \.manifestDigest).mapValues { $0.map(\.name).sorted() }
        try ListedDisks(entries: entries, names: names, isQuiet: global.printsNamesOnly).show(asJSON: json)
    }
}

private struct ListedDisks: CommandReport {
    var entries: [DiskEntry]
    /// The tags of each image.
    var names: [ContentDigest: [ByteString]]
    var isQuiet: Bool

    private func paths(_ entry: DiskEntry) -> [ByteString] {
        entry.disk?.entryFiles.map(\.path) ?? []
    }

    var lines: [String] {
        if isQuiet { return entries.flatMap(paths).map { Output.printable($0) } }
        guard !entries.isEmpty else { return [] }
        let rows = entries.map { entry in
            let name = names[entry.manifestDigest]?.first.map { Output.printable($0) } ?? entry.manifestDigest.description
            return [
                name, entry.request?.kind.rawValue ?? Output.printable(entry.key), entry.request?.tree.rawValue ?? "-",
                entry.size.map { "\($0)" } ?? "-", paths(entry).first.map { Output.printable($0) } ?? "-",
            ]
        }
        return table(["IMAGE", "KIND", "TREE", "SIZE", "PATH"], rows).split(separator: "\n").map(String.init)
    }

    var json: JSONValue {
        .array(
            entries.map { entry in
                [
                    "manifestDigest": .string(entry.manifestDigest.description),
                    "names": .array((names[entry.manifestDigest] ?? []).map { .string($0.jsonText) }),
                    "key": .string(entry.key.jsonText), "kind": .text(entry.request?.kind.rawValue),
                    "tree": .text(entry.request?.tree.rawValue), "size": entry.size.map { .integer(Int64(clamping: $0)) } ?? .null,
                    "usable": .bool(entry.disk != nil), "paths": .array(paths(entry).map { .string($0.jsonText) }),
                ]
            })
    }
}
