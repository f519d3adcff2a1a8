import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Prune: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune",
        abstract: "Remove unused data: everything that no tag keeps, and records of artifacts and disks whose image was removed.",
        discussion: """
            Keeps what gc keeps. With --all, --older-than, --keep or --filter, tags are removed, too, after a question on the terminal; without \
            a terminal --yes is needed. A tag must satisfy all conditions that are given. Images that are mounted, booted or deployed, and \
            those that a boot entry names, keep their tags, and names of create-image always stay. Waits like gc.

            A tag is used when its image is pulled, mounted, pushed, exported or copied under this name. A tag whose last use is unknown, \
            because its time was lost, is not older than any age.
            """)

    @Flag(name: .shortAndLong, help: "Also remove the tags of all images that are not mounted, booted or deployed.")
    var all = false

    @Option(
        help: ArgumentHelp(
            "Remove tags that were not used for this long: 30m, 12h, 7d, 4w.", valueName: "age"))
    var olderThan: String?

    @Option(
        help: ArgumentHelp("Remove all tags of a repository name (without :TAG) but the n that were used last.", valueName: "n"))
    var keep: Int?

    @OptionGroup var filters: FilterOptions

    @Flag(help: "Also remove the disks of all images, which `cfsoci disk` makes again.")
    var disks = false

    @Flag(name: .shortAndLong, help: "Do not ask before tags are removed.")
    var yes = false

    @OptionGroup var removal: RemovalOptions
    @OptionGroup var global: GlobalOptions

    func validate() throws {
        _ = try policy()
    }

    /// Nil if no condition is given.
    private func policy() throws -> PrunePolicy? {
        var policy = PrunePolicy(keep: keep, filters: try filters.filters())
        if let olderThan {
            guard let age = Age.parse(olderThan) else { throw ValidationError("--older-than takes \(Age.form), not \(olderThan)") }
            policy.olderThan = age
        }
        if let keep, keep < 0 { throw ValidationError("--keep takes 0 or more, not \(keep)") }
        return policy == .unused ? nil : policy
    }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: removal.dryRun, wait: removal.wait.limit)
        let report = try store.prune(
            all: all, policy: try policy(), disks: disks, dryRun: removal.dryRun, wait: removal.wait.limit, confirm: yes ? nil : confirm,
            willWait: removal.waitingNote(global))
        removal.warn(report.garbage, global)
        try Pruned(report: report, isDryRun: removal.dryRun).show(asJSON: removal.json)
    }
}

extension Prune {
    /// Asks on the terminal whether to remove the tags.
    private func confirm(_ tags: [ByteString]) throws {
        let count = tags.count == 1 ? "1 tag" : "\(tags.count) tags"
        guard StandardStream.input.isTerminal, StandardStream.error.isTerminal else {
            throw CommandError(
                "prune\(all ? " --all" : "") would remove \(count), and there is no terminal to ask on: confirm with --yes, or see --dry-run"
            )
        }
        for tag in tags { Output.note(Output.printable(tag)) }
        Output.writeError("Remove \(tags.count == 1 ? "this tag" : "these \(count)")? [y/N] ")
        let answer = try Self.line().lowercased()
        guard answer == "y" || answer == "yes" else { throw CommandError("nothing was removed") }
    }

    /// Reads a line from standard input, without its end. A line longer than any answer counts as none.
    private static func line() throws -> String {
        var bytes: [UInt8] = []
        while bytes.count < 64 {
            let byte = try withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { buffer -> UInt8? in
                try StandardStream.input.read(into: buffer) == 1 ? buffer[0] : nil
            }
            guard let byte, byte != UInt8(ascii: "\n") else { break }
            bytes.append(byte)
        }
        return String(decoding: bytes, as: UTF8.self).filter { !$0.isWhitespace }
    }
}

private struct Pruned: CommandReport {
    var report: PruneReport
    var isDryRun: Bool

    var lines: [String] {
        report.tagsRemoved.map { "Removed tag \(Output.printable($0))" }
            + report.tagsKept.map { "Kept tag \(Output.printable($0.name)): the image is \(Self.text($0.use))" }
            + CollectedGarbage(report: report.garbage, isDryRun: isDryRun).lines + ["referrers    \(report.referrersRemoved) removed"]
            + (report.disksRemoved > 0 ? ["disks        \(report.disksRemoved) removed"] : [])
    }

    private static func text(_ use: PruneReport.Use) -> String { use == .bootEntry ? "named by a boot entry" : use.rawValue }

    var json: JSONValue {
        var document = report.garbage.json
        document["tagsRemoved"] = .array(report.tagsRemoved.map { .string($0.jsonText) })
        document["tagsKept"] = .array(report.tagsKept.map { ["name": .string($0.name.jsonText), "use": .string($0.use.rawValue)] })
        document["referrersRemoved"] = .count(report.referrersRemoved)
        document["disksRemoved"] = .count(report.disksRemoved)
        return document
    }
}
