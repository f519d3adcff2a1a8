import ArgumentParser
import ComposefsOCI

struct Prune: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Remove what is of no use: all that no tag keeps, and records of artifacts whose image is gone.")

    @Flag(name: .shortAndLong, help: "Also remove the tags of all images that are not mounted, booted or deployed.")
    var all = false

    @OptionGroup var removal: RemovalOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let report = try global.openStore(readOnly: removal.dryRun).pruneSynchronously(
            all: all, dryRun: removal.dryRun, willWait: removal.waitingNote(global))
        removal.warn(report.garbage, global)
        try Pruned(report: report, isDryRun: removal.dryRun).show(asJSON: removal.json)
    }
}

private struct Pruned: CommandReport {
    var report: PruneReport
    var isDryRun: Bool

    var lines: [String] {
        report.tagsRemoved.map { "Removed tag \(Output.printable($0))" }
            + report.tagsKept.map { "Kept tag \(Output.printable($0.name)): the image is \($0.use.rawValue)" }
            + CollectedGarbage(report: report.garbage, isDryRun: isDryRun).lines + ["referrers    \(report.referrersRemoved) removed"]
    }

    var json: JSONValue {
        var document = report.garbage.json
        document["tagsRemoved"] = .array(report.tagsRemoved.map { .string($0.jsonText) })
        document["tagsKept"] = .array(report.tagsKept.map { ["name": .string($0.name.jsonText), "use": .string($0.use.rawValue)] })
        document["referrersRemoved"] = .count(report.referrersRemoved)
        return document
    }
}
