import ArgumentParser
import ComposefsOCI

struct GarbageCollect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gc", abstract: "Remove everything that no tag keeps. Waits for others that use the repository.")

    @Option(name: [.customShort("r"), .long], help: ArgumentHelp("Also keep this stream or image.", valueName: "name"))
    var root: [ByteString] = []

    @OptionGroup var removal: RemovalOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let report = try global.openStore(readOnly: removal.dryRun).repository.collectGarbage(
            dryRun: removal.dryRun, extraRoots: root, willWait: removal.waitingNote(global))
        removal.warn(report, global)
        if removal.json { return try Output.print(report.json) }
        try report.show(dryRun: removal.dryRun)
    }
}
