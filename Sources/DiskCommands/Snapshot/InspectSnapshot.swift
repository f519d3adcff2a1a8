import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct InspectSnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show the descriptor of a snapshot.",
        discussion: """
            With --json, "descriptor" is snapshot.json.

            Example: cfsoci snapshot inspect ready
            """)

    @Argument(help: "The snapshot.", completion: .snapshotName)
    var snapshot: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let snapshots = SnapshotStore(store.images)
        let details = try withSnapshotHints {
            let found = try snapshots.open(snapshot)
            let names = try snapshots.list().filter { (try? $0.snapshot.get())?.identity == found.identity }.map(\.name)
            return try SnapshotDetails(snapshot: found, names: names, needsRecovery: snapshots.needsRecovery(found))
        }
        try details.show(asJSON: json)
    }
}

private struct SnapshotDetails: CommandReport {
    var snapshot: StoredSnapshot
    var names: [ByteString]
    var needsRecovery: Bool

    var lines: [String] {
        let descriptor = snapshot.descriptor
        func text(_ text: String) -> String { Output.printable(ByteString(text)) }
        var lines = ["identity: \(snapshot.identity)"]
        for name in names { lines.append("name: \(Output.printable(name))") }
        lines.append("created: \(descriptor.createdAt)")
        if let parent = descriptor.parent {
            lines.append("parent: \(parent)\(snapshot.parentStream == nil ? ", which is not in the repository" : "")")
        }
        lines.append("image: \(text(descriptor.imageReference))")
        lines.append("manifest: \(descriptor.imageManifest)\(snapshot.imageStream == nil ? ", which was not in the repository" : "")")
        if let sandbox = descriptor.sourceSandbox { lines.append("sandbox: \(text(sandbox))") }
        lines.append("disk: \(descriptor.format.rawValue), \(text(descriptor.filesystem)), \(descriptor.size) bytes")
        lines.append("integrity: \(descriptor.integrity.map { "\($0.algorithm) \($0.value)" } ?? "not recorded")")
        if needsRecovery { lines.append("journal: has changes that are applied when the disk is mounted") }
        for label in descriptor.labels { lines.append("label: \(text(label.key))=\(text(label.value))") }
        return lines
    }

    var json: JSONValue {
        [
            "identity": .string("\(snapshot.identity)"), "names": .array(names.map { .string($0.jsonText) }),
            "parentStored": .bool(snapshot.parentStream != nil), "imageStored": .bool(snapshot.imageStream != nil),
            "needsRecovery": .bool(needsRecovery),
            "descriptor": (try? JSONValue.parse(snapshot.descriptor.canonicalBytes)) ?? .null,
        ]
    }
}
