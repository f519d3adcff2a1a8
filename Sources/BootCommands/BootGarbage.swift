import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootGarbage: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .changingBoot }

    static let configuration = CommandConfiguration(
        commandName: "gc", abstract: "Remove entries and kernels that no deployment needs.",
        discussion: """
            Entries of this system whose deployment is gone are removed, kernels and initial RAM disks that no entry of the boot partition \
            reads, and what interrupted commands have left. Deployments, and entries of other systems, stay.

            Example: cfsoci boot gc --dry-run
            """)

    @OptionGroup var place: BootPlace

    @Option(help: ArgumentHelp("The directory on the boot partition for kernels and initial RAM disks.", valueName: "dir"))
    var subdir: ByteString = "composefs"

    @Flag(name: [.customShort("n"), .long], help: "Only show what would be removed.")
    var dryRun = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let (_, partition, deployments) = try place.open(global, .changingBoot, writes: true)
        let removal = try deployments.collectGarbage(partition, subdirectory: subdir, dryRun: dryRun)
        try RemovalReport(removal: removal, isPlan: dryRun).show(asJSON: json)
    }
}
