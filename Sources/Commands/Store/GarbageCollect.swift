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
        try CollectedGarbage(report: report, isDryRun: removal.dryRun).show(asJSON: removal.json)
    }
}

/// What a collection removed, or would remove.
struct CollectedGarbage: CommandReport {
    var report: GarbageReport
    var isDryRun: Bool

    var lines: [String] {
        (isDryRun ? ["Dry run: nothing was removed"] : []) + [
            "objects      \(report.objectsRemoved) removed, \(humanBytes(report.bytesRemoved))",
            "streams      \(report.streamsRemoved) removed",
            "images       \(report.imagesRemoved) removed",
            "temporaries  \(report.temporariesRemoved) removed",
        ]
    }

    var json: JSONValue { report.json }
}
