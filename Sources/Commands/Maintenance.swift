import ArgumentParser
import ComposefsOCI

struct Fsck: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look for damage in all of the repository, or in one image. Changes nothing; exit status 2 where there is some.")

    @Argument(help: "Only this image, besides the repository itself.")
    var image: ByteString?

    @Flag(help: "Leave out what reads all objects.")
    var metadataOnly = false

    @Flag(help: "Also merge the layers anew and compare the EROFS images.")
    var deep = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(metadataOnly && deep) else { throw ValidationError("--metadata-only and --deep exclude each other") }
    }

    func run() throws {
        let store: Store
        do {
            store = try global.openStore(readOnly: true)
        } catch let error as RepositoryError {
            switch error {
            // The one file that everything else depends on.
            case .metadata, .unsupportedVersion, .incompatibleFeatures, .algorithmMismatch, .verityLost:
                return try reportUnusable("\(error)")
            default: throw error
            }
        }
        let found = try store.checkSynchronously(image, ImageCheckOptions(metadataOnly: metadataOnly, deep: deep))
        let (report, images, isClean) = (found.repository, found.images, found.isClean)
        if json {
            try Output.print([
                "ok": .bool(isClean), "repository": report.json, "imagesChecked": .integer(Int64(images.imagesChecked)),
                "imagesDamaged": .integer(Int64(images.imagesDamaged)),
                "imageErrors": .array(
                    images.problems.map {
                        ["type": .string($0.kind), "image": .string($0.image.description), "detail": .string($0.detail)]
                    }),
            ])
        } else {
            // The verdict stands last, over both levels.
            let lines = report.lines
            let verdict = lines.firstIndex { $0.hasPrefix("status:") } ?? lines.count
            for line in lines[..<verdict] { try Output.print(line) }
            try Output.print("oci images: \(images.imagesChecked - images.imagesDamaged)/\(images.imagesChecked) ok")
            let count = report.problems.count + images.problems.count
            try Output.print(count == 0 ? "status: ok" : "status: \(count) error(s)")
            for problem in report.problems { try Output.print("  - \(problem)") }
            for problem in images.problems { try Output.print("  - \(problem)") }
        }
        if !isClean { throw DamageFound(message: nil) }
    }

    private func reportUnusable(_ what: String) throws {
        if json {
            try Output.print([
                "ok": .bool(false),
                "repository": [
                    "ok": .bool(false), "errors": [["type": "metadata-parse-failed", "path": "meta.json", "detail": .string(what)]],
                ],
            ])
        } else {
            try Output.print("meta.json: error")
            try Output.print("status: 1 error(s)")
            try Output.print("  - fsck: metadata-parse-failed: \(what)")
        }
        throw DamageFound(message: nil)
    }
}

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

/// What the commands that remove something have in common.
struct RemovalOptions: ParsableArguments {
    @Flag(name: [.customShort("n"), .long], help: "Only say what would go.")
    var dryRun = false

    @Flag(help: "Print JSON.")
    var json = false

    fileprivate func waitingNote(_ global: GlobalOptions) -> @Sendable () -> Void {
        let note = global.noteTaker
        return { note("waiting for another process that uses the repository") }
    }

    fileprivate func warn(_ report: GarbageReport, _ global: GlobalOptions) {
        for reference in report.danglingReferences { global.note("warning: \(reference) leads to nothing; `cfsoci untag` removes a tag") }
    }
}

extension GarbageReport {
    fileprivate func show(dryRun: Bool) throws {
        if dryRun { try Output.print("Dry run: nothing was removed") }
        try Output.print("objects      \(objectsRemoved) removed, \(humanBytes(bytesRemoved))")
        try Output.print("streams      \(streamsRemoved) removed")
        try Output.print("images       \(imagesRemoved) removed")
        try Output.print("temporaries  \(temporariesRemoved) removed")
    }
}

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

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring an old repository to the current form: meta.json, and the EROFS images of its default format.")

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let report = try global.openStore(upgradeOldFormat: true, signer: signing.signer()).images.upgrade()
        if json {
            return try Output.print([
                "upgraded": .integer(Int64(report.upgraded)), "current": .integer(Int64(report.alreadyCurrent)),
                "artifacts": .integer(Int64(report.artifacts)),
            ])
        }
        try Output.print("upgraded  \(report.upgraded)")
        try Output.print("current   \(report.alreadyCurrent)")
        try Output.print("artifacts \(report.artifacts)")
    }
}
