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
        if removal.json {
            var document = report.garbage.json
            document["tagsRemoved"] = .array(report.tagsRemoved.map { .string($0.jsonText) })
            document["tagsKept"] = .array(
                report.tagsKept.map { ["name": .string($0.name.jsonText), "use": .string($0.use.rawValue)] })
            document["referrersRemoved"] = .integer(Int64(report.referrersRemoved))
            return try Output.print(document)
        }
        for name in report.tagsRemoved { try Output.print("Removed tag \(Output.printable(name))") }
        for kept in report.tagsKept { try Output.print("Kept tag \(Output.printable(kept.name)): the image is \(kept.use.rawValue)") }
        try report.garbage.show(dryRun: removal.dryRun)
        try Output.print("referrers    \(report.referrersRemoved) removed")
    }
}
