import ArgumentParser
package import ComposefsOCI

/// Options of the commands that remove something.
package struct RemovalOptions: ParsableArguments {
    @Flag(name: [.customShort("n"), .long], help: "Only show what would be removed.")
    package var dryRun = false

    @Option(help: ArgumentHelp("How long to wait for other processes that use the repository.", valueName: "seconds|forever"))
    package var wait = WaitTime(limit: .upTo(.seconds(10)))

    @Flag(help: "Print JSON.")
    package var json = false

    package init() {}

    package func waitingNote(_ global: GlobalOptions) -> @Sendable () -> Void {
        let note = global.noteTaker
        return { note("waiting for another process that uses the repository") }
    }

    package func warn(_ report: GarbageReport, _ global: GlobalOptions) {
        for reference in report.danglingReferences { global.warn("\(reference) leads to nothing; `cfsoci untag` removes a tag") }
    }
}

/// A number of seconds, which may have a fraction, or `forever`.
package struct WaitTime: ExpressibleByArgument {
    package var limit: LockWait

    package init(limit: LockWait) { self.limit = limit }

    package init?(argument: String) {
        if argument == "forever" {
            limit = .forever
            return
        }
        // No sign, exponent or name of a number.
        guard argument.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == UInt8(ascii: ".") }), let seconds = Double(argument),
            seconds <= 1e9
        else { return nil }
        limit = .upTo(.milliseconds(Int64((seconds * 1000).rounded(.up))))
    }

    package var defaultValueDescription: String {
        guard case .upTo(let duration) = limit else { return "forever" }
        return "\(duration.components.seconds)"
    }
}
