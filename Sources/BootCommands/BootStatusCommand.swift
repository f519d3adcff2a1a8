import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootStatusCommand: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .readingBoot }

    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show which deployment runs, which is booted next, and which a rollback would boot.",
        discussion: """
            The kernel's arguments tell what runs. What is booted next is told by loader/loader.conf and the order of entries; a choice that \
            the boot loader saved itself, or an EFI variable, is not seen.

            Example: cfsoci boot status --json
            """)

    @OptionGroup var place: BootPlace

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (_, partition, deployments) = try place.open(global, .readingBoot, writes: false)
        try StatusReport(status: try deployments.status(partition)).show(asJSON: json)
    }
}

private struct StatusReport: CommandReport {
    var status: BootStatus

    private var booted: Deployment? { status.deployments.first { $0.id == status.booted } }

    var lines: [String] {
        [
            "booted    " + (booted.map { text($0, status.entries(of: $0.id).first) } ?? "no deployment"),
            "next      " + text(status.next), "previous  " + text(status.previous),
        ]
    }

    private func text(_ entry: BootEntry?) -> String {
        guard let entry else { return "-" }
        guard let deployment = status.deployment(of: entry) else { return "\(Output.printable(entry.id)) (no deployment)" }
        return text(deployment, entry)
    }

    private func text(_ deployment: Deployment, _ entry: BootEntry?) -> String {
        var text = String(deployment.id.hex.prefix(12)) + "  " + ((deployment.record?.image).map(Output.printable) ?? "-")
        guard let entry else { return text }
        text += "  " + Output.printable(entry.id)
        if let left = entry.name.attemptsLeft { text += "  (\(left) \(left == 1 ? "attempt" : "attempts") left)" }
        return text
    }

    var json: JSONValue {
        [
            "booted": booted.map { DeploymentsReport.json(of: $0, status) } ?? .null, "next": json(of: status.next),
            "previous": json(of: status.previous),
        ]
    }

    private func json(of entry: BootEntry?) -> JSONValue {
        guard let entry else { return .null }
        return ["entry": entry.json, "deployment": status.deployment(of: entry).map { DeploymentsReport.json(of: $0, status) } ?? .null]
    }
}
