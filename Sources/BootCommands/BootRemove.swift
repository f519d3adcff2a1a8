import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootRemove: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .changingBoot }

    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Remove a deployment with its entries and its local /etc.",
        discussion: """
            Kernels that no entry needs any more are removed, too. The image stays in the repository as long as it has a name. What runs is \
            never removed.

            Example: cfsoci boot remove 3f2a91c07b6d
            """)

    @Argument(help: "The deployment: its identifier or the beginning of it, an entry, or the name of its image.", completion: .imageName)
    var deployment: ByteString

    @OptionGroup var place: BootPlace

    @Option(help: ArgumentHelp("The directory on the boot partition for kernels and initial RAM disks.", valueName: "dir"))
    var subdir: ByteString = "composefs"

    @Flag(help: "Remove it even if it is pinned, the last one with an entry, or has data in a /var of its own.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (_, partition, deployments) = try place.open(global, .changingBoot, writes: true)
        let removal = try deployments.remove(deployment, partition, subdirectory: subdir, force: force)
        try RemovalReport(removal: removal).show(asJSON: json)
    }
}

struct RemovalReport: CommandReport {
    var removal: BootRemoval
    var isPlan = false

    var lines: [String] {
        let verb = isPlan ? "Would remove" : "Removed"
        return removal.deployments.map { "\(verb) the deployment \($0.hex)" }
            + removal.entries.map { "\(verb) the entry \(Output.printable($0))" }
            + [
                "\(verb) \(removal.files.count) \(removal.files.count == 1 ? "file" : "files") of the boot partition, \(removal.bytes) bytes"
            ]
    }

    var json: JSONValue {
        [
            "deployments": .texts(removal.deployments.map(\.hex)), "entries": .array(removal.entries.map { .string($0.jsonText) }),
            "files": .array(removal.files.map { .string($0.jsonText) }), "bytesRemoved": .integer(Int64(clamping: removal.bytes)),
            "temporariesRemoved": .count(removal.temporaries),
        ]
    }
}
