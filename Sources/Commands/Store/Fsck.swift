import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Fsck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fsck",
        abstract: "Look for damage in all of the repository, or in one image, and repair it. Exit status 2 if there is some left.",
        discussion: """
            Reads every object and compares it with its name. A layer is re-assembled and hashed unless its objects are intact and the pull that \
            made it recorded its diff ID; --deep does so with every layer, and -v shows how many there were of both.

            The report states the next step for each damaged image. Without --repair nothing is changed.

            --repair moves damaged files to the directory .damaged of the repository, where they stay until `cfsoci gc`. Then it fetches the \
            missing layers of each damaged image from the source that the image was pulled from, and generates EROFS images again. The next \
            repair continues an interrupted one.
            """)

    @Argument(help: "Check only this image and the repository itself.", completion: .imageName)
    var image: ByteString?

    @Flag(help: "Leave out what reads all objects.")
    var metadataOnly = false

    @Flag(help: "Also re-assemble every layer, merge the layers anew and compare the EROFS images.")
    var deep = false

    @Option(help: ArgumentHelp("Read only this part of the objects and layers, such as 3/7: one each night, in turn.", valueName: "n/m"))
    var subset: String?

    @Flag(help: "Repair what is damaged.")
    var repair = false

    @Option(
        help: ArgumentHelp(
            "With --repair: fetch damaged images from there: a reference as for pull, an OCI layout, or another repository.",
            valueName: "reference|layout|repo"), completion: .source)
    var from: ByteString?

    @Flag(help: "With --repair: say what would be done, and change nothing.")
    var dryRun = false

    @Flag(help: "With --repair: remove references that lead to nothing and cannot be repaired.")
    var pruneDangling = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Registry options") var registry: RegistryArguments

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(metadataOnly && deep) else { throw ValidationError("--metadata-only and --deep exclude each other") }
        guard repair || from == nil && !dryRun && !pruneDangling else {
            throw ValidationError("--from, --dry-run and --prune-dangling go with --repair only")
        }
        guard !repair || !metadataOnly && subset == nil else {
            throw ValidationError("--repair reads everything: it excludes --metadata-only and --subset")
        }
        guard !metadataOnly || subset == nil else { throw ValidationError("--metadata-only and --subset exclude each other") }
        if subset != nil { _ = try parsedSubset() }
    }

    private func parsedSubset() throws -> CheckSubset? {
        guard let subset else { return nil }
        let parts = subset.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let index = parts[0], let count = parts[1], let parsed = CheckSubset(index, of: count) else {
            throw ValidationError("--subset takes N/M, with N from 1 to M")
        }
        return parsed
    }

    func run() throws {
        if repair { return try runRepair() }
        let store: Store
        do {
            store = try global.openStore(Self.rights, readOnly: true)
        } catch let error as RepositoryError {
            guard isOfMetadata(error) else { throw error }
            try UnusableRepository(what: describe(error)).show(asJSON: json)
            throw DamageFound(message: nil)
        }
        let display = ProgressDisplay(global, CheckState())
        defer { display.end() }
        let found = try check(store) { display.show($0) }
        display.end()
        try CheckedStore(report: found, steps: steps(found, store.images), isVerbose: global.verbose).show(asJSON: json)
        if !found.isClean { throw DamageFound(message: nil) }
    }

    /// Whether it is `meta.json`, on which everything else depends.
    private func isOfMetadata(_ error: RepositoryError) -> Bool {
        switch error {
        case .metadata, .unsupportedVersion, .incompatibleFeatures, .algorithmMismatch, .verityLost: true
        default: false
        }
    }

    private func runRepair() throws {
        let path = try global.repositoryPath()
        var options = StoreRepairOptions()
        options.registry = try registry.options(global)
        var actions: [RepairAction] = []
        if let metadata = try Repository.repairMetadata(path, global.openOptions(readOnly: dryRun), isDryRun: dryRun) {
            actions.append(.metadataWritten(fault: metadata.fault))
        }
        let store: Store
        do {
            store = try global.openStore(nil, readOnly: dryRun)
        } catch let error as RepositoryError {
            // The next repairs would depend on this one, which a dry run does not do.
            guard dryRun, !actions.isEmpty, isOfMetadata(error) || error.isOldFormat else { throw error }
            for action in actions { try Output.print(action.line(isPlan: true)) }
            throw DamageFound(message: nil)
        }
        try confineRepair(store, path, options.registry)
        // Starts a thread, so the process is confined before.
        let display = ProgressDisplay(global, CheckState())
        defer { display.end() }
        for action in actions { display.show(.repair(.did(action))) }
        options.image = image
        options.isDryRun = dryRun
        options.prunesDangling = pruneDangling
        options.from = from
        options.observer = { display.show($0) }
        var result = try store.repair(options)
        display.end()
        result.repair.actions = actions + result.repair.actions
        let found = result.after ?? result.before
        let checked = CheckedStore(report: found, steps: steps(found, store.images), isVerbose: global.verbose)
        try RepairedStore(repair: result.repair, checked: checked).show(asJSON: json)
        if !result.isClean { throw DamageFound(message: nil) }
    }

    private func check(_ store: Store, _ observer: @escaping @Sendable (StoreCheckEvent) -> Void) throws -> StoreReport {
        let options = ImageCheckOptions(metadataOnly: metadataOnly, deep: deep, subset: try parsedSubset())
        do {
            return try store.check(image, options, observer: observer)
        } catch let error as ImageStoreError {
            // The check of the repository covers an image of create-image, which has only its EROFS image.
            guard case .noSuchImage = error, let image, try store.images.hasName(image) else { throw error }
            let found = try store.repository.check(metadataOnly: metadataOnly, subset: options.subset) {
                observer(.objects(done: $0, total: $1))
            }
            return StoreReport(repository: found, images: ImageReport())
        }
    }

    /// The next step for each damaged image, in the order of the faults; then for those with faults only in their EROFS images, which only the
    /// check of the repository finds.
    private func steps(_ found: StoreReport, _ images: ImageStore) -> [CheckedStore.Step] {
        var steps: [CheckedStore.Step] = []
        var kinds: [ByteString: Set<String>] = [:]
        for problem in found.images.problems { kinds[problem.image, default: []].insert(problem.kind) }
        for problem in found.images.problems where !steps.contains(where: { $0.name == problem.image }) {
            steps.append(.init(name: problem.image, text: FsckAdvice.step(forTag: problem.image, kinds[problem.image] ?? [], images)))
        }
        guard !found.repository.isOK else { return steps }
        let faults = ImageFaults(found.repository)
        // A directory that cannot be listed is among the faults already, and must not hide the others.
        for tag in (try? images.tags()) ?? [] where kinds[tag.name] == nil {
            guard let stored = try? images.image(tag.manifestDigest), stored.allImageIDs.contains(where: faults.concern) else { continue }
            steps.append(.init(name: tag.name, text: FsckAdvice.step(forTag: tag.name, [], images)))
        }
        let (named, broken) = (try? images.namedImages()) ?? ([], [])
        let names = broken.map(\.name) + named.filter { faults.concern($0.imageID) }.map(\.name)
        for name in names.sorted() { steps.append(.init(name: name, text: FsckAdvice.step(forName: name))) }
        return steps
    }
}

/// The EROFS images that the faults of the repository concern.
private struct ImageFaults {
    private let paths: Set<ByteString>
    private let objects: Set<ObjectID>

    init(_ report: FsckReport) {
        paths = Set(report.problems.map(\.path))
        // In a fault of an image, the object is one that the image needs. In a digest mismatch, it is the digest that was found.
        objects = Set(report.problems.filter { $0.kind != .objectDigestMismatch }.compactMap(\.object))
    }

    func concern(_ id: ObjectID) -> Bool {
        paths.contains("images/" + ByteString(id.hex)) || paths.contains("objects/" + ByteString(id.objectPath)) || objects.contains(id)
    }
}

/// The result of fsck: of the repository and of the images.
struct CheckedStore: CommandReport {
    /// The next step for a damaged image.
    struct Step {
        var name: ByteString
        var text: String
    }

    var report: StoreReport
    var steps: [Step]
    var isVerbose = false

    var lines: [String] {
        let (repository, images) = (report.repository, report.images)
        let snapshots = report.snapshots
        let count = repository.problems.count + images.problems.count + snapshots.problems.count
        var lines = repository.counts
        lines.append("oci images: \(images.imagesChecked - images.imagesDamaged)/\(images.imagesChecked) ok")
        if images.referrersChecked > 0 {
            lines.append("referrers: \(images.referrersChecked - images.referrersDamaged)/\(images.referrersChecked) ok")
        }
        if images.disksChecked > 0 { lines.append("disks: \(images.disksChecked - images.disksDamaged)/\(images.disksChecked) ok") }
        if images.indexesChecked > 0 {
            lines.append("indexes: \(images.indexesChecked - images.indexesDamaged)/\(images.indexesChecked) ok")
        }
        if snapshots.checked > 0 { lines.append("snapshots: \(snapshots.checked - snapshots.damaged)/\(snapshots.checked) ok") }
        for name in images.withoutDefaultImage {
            lines.append("note: \(Output.printable(name)) has no EROFS image of the repository's default format; an upgrade generates it")
        }
        if isVerbose { lines.append("layers: \(images.layersReassembled) re-assembled, \(images.layersByRecord) by their record") }
        // The verdict follows the counts of the repository and of the images.
        lines.append(count == 0 ? "status: ok" : "status: \(count) error(s)")
        for problem in repository.problems { lines.append("  - \(problem)") }
        for problem in images.problems { lines.append("  - \(problem)") }
        for problem in snapshots.problems { lines.append("  - \(problem)") }
        for step in FsckAdvice.steps(for: repository.problems, areImagesDamaged: !steps.isEmpty) { lines.append("next step: \(step)") }
        for step in steps { lines.append("next step for \(Output.printable(step.name)): \(step.text)") }
        return lines
    }

    var json: JSONValue {
        let images = report.images
        let errors: [JSONValue] = images.problems.map { problem in
            ["type": .string(problem.kind), "image": .string(problem.image.description), "detail": .string(problem.detail)]
        }
        let steps: [JSONValue] = steps.map { ["image": .string($0.name.jsonText), "step": .string($0.text)] }
        let others = FsckAdvice.steps(for: report.repository.problems, areImagesDamaged: !steps.isEmpty)
        var document: JSONValue = [
            "ok": .bool(report.isClean), "repository": report.repository.json, "imagesChecked": .count(images.imagesChecked),
            "imagesDamaged": .count(images.imagesDamaged), "referrersChecked": .count(images.referrersChecked),
            "referrersDamaged": .count(images.referrersDamaged), "disksChecked": .count(images.disksChecked),
            "disksDamaged": .count(images.disksDamaged), "indexesChecked": .count(images.indexesChecked),
            "indexesDamaged": .count(images.indexesDamaged), "imageErrors": .array(errors),
        ]
        if report.snapshots.checked > 0 || !report.snapshots.isClean {
            document["snapshotsChecked"] = .count(report.snapshots.checked)
            document["snapshotsDamaged"] = .count(report.snapshots.damaged)
            document["snapshotErrors"] = .array(
                report.snapshots.problems.map { ["snapshot": .string($0.snapshot.jsonText), "detail": .string($0.detail)] })
        }
        if isVerbose {
            document["layersReassembled"] = .count(images.layersReassembled)
            document["layersByRecord"] = .count(images.layersByRecord)
        }
        let nextSteps: [JSONValue] = others.map { ["step": .string($0)] } + steps
        if !nextSteps.isEmpty { document["nextSteps"] = .array(nextSteps) }
        return document
    }
}

/// The report if `meta.json` cannot be used.
private struct UnusableRepository: CommandReport {
    var what: String

    var lines: [String] {
        [
            "meta.json: error", "status: 1 error(s)", "  - fsck: metadata-parse-failed: \(what)",
            "next step: cfsoci fsck --repair writes meta.json again, unless a newer release created the repository",
        ]
    }

    var json: JSONValue {
        [
            "ok": false,
            "repository": [
                "ok": false, "errors": [["type": "metadata-parse-failed", "path": "meta.json", "detail": .string(what)]],
            ],
        ]
    }
}

extension RepositoryError {
    fileprivate var isOldFormat: Bool { if case .oldFormat = self { true } else { false } }
}
