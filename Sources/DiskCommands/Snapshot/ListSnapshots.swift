import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsOCI

struct ListSnapshots: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List snapshots by their names.",
        discussion: """
            SIZE is that of the disk, with holes, in bytes. PARENT is a name of the parent, or the first digits of its identity. After the command's \
            name, -q prints names only, one a line. Exit status 2 if a snapshot cannot be read.

            Example: cfsoci snapshot list
            """, aliases: ["ls"])

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let found = try SnapshotStore(store.images).list()
        var broken = 0
        for entry in found {
            guard case .failure(let error) = entry.snapshot else { continue }
            broken += 1
            Output.error(Output.printable(ByteString(error.description)), .damaged, status: 2)
        }
        let list = SnapshotList(entries: found.compactMap { entry in (try? entry.snapshot.get()).map { (entry.name, $0) } })
        if global.printsNamesOnly, !json {
            for entry in list.entries { try Output.print(Output.printable(entry.name)) }
        } else {
            try list.show(asJSON: json)
        }
        if broken > 0 { throw DamageFound(message: "\(broken) snapshots cannot be read; `cfsoci fsck` has details") }
    }
}

private struct SnapshotList: CommandReport {
    var entries: [(name: ByteString, snapshot: StoredSnapshot)]

    var lines: [String] {
        guard !entries.isEmpty else { return ["No snapshots"] }
        var names: [ContentDigest: ByteString] = [:]
        for entry in entries.reversed() { names[entry.snapshot.identity] = entry.name }
        let rows = entries.map { name, snapshot in
            let descriptor = snapshot.descriptor
            let parent = descriptor.parent.map { parent in names[parent].map(Output.printable) ?? String(parent.hex.prefix(12)) } ?? "-"
            return [
                Output.printable(name), String(snapshot.identity.hex.prefix(12)), "\(descriptor.size)", descriptor.createdAt, parent,
                Output.printable(ByteString(descriptor.imageReference)),
            ]
        }
        return table(["NAME", "IDENTITY", "SIZE", "CREATED", "PARENT", "IMAGE"], rows).split(separator: "\n").map(String.init)
    }

    var json: JSONValue {
        .array(
            entries.map { name, snapshot in
                let descriptor = snapshot.descriptor
                return [
                    "name": .string(name.jsonText), "identity": .string("\(snapshot.identity)"), "size": JSONValue(descriptor.size),
                    "createdAt": .string(descriptor.createdAt), "parent": .text(descriptor.parent),
                    "image": .string(descriptor.imageReference), "manifestDigest": .string("\(descriptor.imageManifest)"),
                    "format": .string(descriptor.format.rawValue), "filesystem": .string(descriptor.filesystem),
                    "labels": .object(JSONObject(descriptor.labels.map { (key: $0.key, value: .string($0.value)) })),
                ]
            })
    }
}
