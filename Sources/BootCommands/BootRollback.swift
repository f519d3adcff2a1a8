import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootRollback: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .changingBoot }

    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Make the entry of another deployment the default.",
        discussion: """
            Without an argument that is the deployment which runs, if another one was prepared and not booted yet, and else the one before. \
            Its /etc is as it was left; /var is shared. The choice is one line of loader/loader.conf, which systemd-boot reads, and which the \
            next `cfsoci boot prepare` removes.

            Example: cfsoci boot rollback
            """)

    @Argument(help: "The deployment: its identifier or the beginning of it, an entry, or the name of its image.", completion: .imageName)
    var deployment: ByteString?

    @OptionGroup var place: BootPlace

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (_, partition, deployments) = try place.open(global, .changingBoot, writes: true)
        let entry = try deployments.rollBack(partition, to: deployment)
        try RollbackReport(entry: entry).show(asJSON: json)
    }
}

private struct RollbackReport: CommandReport {
    var entry: BootEntry

    var lines: [String] { ["next  \(Output.printable(entry.id))"] }

    var json: JSONValue { ["next": entry.json, "imageId": .text(entry.images.first?.hex)] }
}
