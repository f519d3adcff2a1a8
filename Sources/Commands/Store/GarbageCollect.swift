import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct GarbageCollect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gc", abstract: "Remove everything that no tag keeps and that is not in use.",
        discussion: """
            Images that are mounted, booted or deployed, and those that a boot entry names, are kept with everything that they need, even \
            without a tag. Waits for other processes that use the repository. If they have not ended after --wait, they are named, nothing is \
            removed, and the exit status is 6.
            """)

    @Option(name: [.customShort("r"), .long], help: ArgumentHelp("Also keep this stream or image.", valueName: "name"))
    var root: [ByteString] = []

    @OptionGroup var removal: RemovalOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: removal.dryRun, wait: removal.wait.limit)
        let report = try store.repository.collectGarbage(
            dryRun: removal.dryRun, extraRoots: root, wait: removal.wait.limit, willWait: removal.waitingNote(global))
        removal.warn(report, global)
        try CollectedGarbage(report: report, isDryRun: removal.dryRun).show(asJSON: removal.json)
    }
}

/// The result of a collection, or of its dry run.
struct CollectedGarbage: CommandReport {
    var report: GarbageReport
    var isDryRun: Bool

    var lines: [String] {
        (isDryRun ? ["Dry run: nothing was removed"] : []) + report.imagesInUse.map(Self.text) + keptForMounts + [
            "objects      \(report.objectsRemoved) removed, \(humanBytes(report.bytesRemoved))",
            "streams      \(report.streamsRemoved) removed",
            "images       \(report.imagesRemoved) removed",
            "temporaries  \(report.temporariesRemoved) removed",
        ]
    }

    private static func text(_ image: ImageInUse) -> String {
        "Kept image \(image.id), which no name leads to: \(image.uses.map(\.description).joined(separator: ", "))"
    }

    private var keptForMounts: [String] {
        let mounts = report.unidentifiedMounts.map(\.description).joined(separator: ", or ")
        return report.imagesKeptForMounts.map { "Kept image \($0), which no name leads to: it may be the one \(mounts)" }
    }

    var json: JSONValue { report.json }
}
