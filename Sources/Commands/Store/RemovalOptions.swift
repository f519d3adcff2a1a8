import ArgumentParser
import ComposefsOCI

/// What the commands that remove something have in common.
struct RemovalOptions: ParsableArguments {
    @Flag(name: [.customShort("n"), .long], help: "Only say what would go.")
    var dryRun = false

    @Flag(help: "Print JSON.")
    var json = false

    func waitingNote(_ global: GlobalOptions) -> @Sendable () -> Void {
        let note = global.noteTaker
        return { note("waiting for another process that uses the repository") }
    }

    func warn(_ report: GarbageReport, _ global: GlobalOptions) {
        for reference in report.danglingReferences { global.note("warning: \(reference) leads to nothing; `cfsoci untag` removes a tag") }
    }
}
