import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootList: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .readingBoot }

    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the deployments and their entries on the boot partition.",
        discussion: "Example: cfsoci boot list --boot /efi")

    @OptionGroup var place: BootPlace

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (_, partition, deployments) = try place.open(global, .readingBoot, writes: false)
        try DeploymentsReport(status: try deployments.status(partition)).show(asJSON: json)
    }
}

struct DeploymentsReport: CommandReport {
    var status: BootStatus

    var lines: [String] {
        guard !status.deployments.isEmpty else { return ["No deployments"] }
        let rows = status.deployments.map { deployment in
            let entries = status.entries(of: deployment.id)
            return [
                String(deployment.id.hex.prefix(12)), (deployment.record?.image).map(Output.printable) ?? "-",
                (deployment.record?.kernel).map(Output.printable) ?? "-",
                entries.isEmpty ? "-" : entries.map { Output.printable($0.id) }.joined(separator: ", "), states(of: deployment),
            ]
        }
        return [table(["ID", "IMAGE", "KERNEL", "ENTRY", "STATE"], rows)]
    }

    private func states(of deployment: Deployment) -> String {
        let states = [
            status.booted == deployment.id ? "booted" : nil, status.next?.images.contains(deployment.id) == true ? "next" : nil,
            status.previous?.images.contains(deployment.id) == true ? "previous" : nil, deployment.isPinned ? "pinned" : nil,
        ].compactMap(\.self)
        return states.isEmpty ? "-" : states.joined(separator: ", ")
    }

    var json: JSONValue { ["deployments": .array(status.deployments.map { Self.json(of: $0, status) })] }

    static func json(of deployment: Deployment, _ status: BootStatus) -> JSONValue {
        let record = deployment.record
        func isImage(of entry: BootEntry?) -> JSONValue { .bool(entry?.images.contains(deployment.id) == true) }
        // One member after the other: as one expression it takes the compiler too long.
        var document: JSONValue = ["imageId": .string(deployment.id.hex), "image": .optional(record?.image)]
        document["manifestDigest"] = .text(record?.manifestDigest)
        document["title"] = .optional(record?.title)
        document["kernel"] = .optional(record?.kernel)
        document["prepared"] = .text(record.map { RFC3339.text($0.prepared) })
        document["entries"] = .array(status.entries(of: deployment.id).map(\.json))
        document["isBooted"] = .bool(status.booted == deployment.id)
        document["isNext"] = isImage(of: status.next)
        document["isPrevious"] = isImage(of: status.previous)
        document["isPinned"] = .bool(deployment.isPinned)
        document["hasOwnVar"] = .bool(deployment.hasOwnVar)
        return document
    }
}

extension BootEntry {
    var json: JSONValue {
        [
            "id": .string(id.jsonText), "path": .string(path.jsonText), "title": .optional(title), "version": .optional(version),
            "attemptsLeft": name.attemptsLeft.map { .count($0) } ?? .null, "attemptsDone": .count(name.attemptsDone),
        ]
    }
}
