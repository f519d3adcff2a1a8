import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Fsck: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look for damage in all of the repository, or in one image. Changes nothing; exit status 2 where there is some.",
        discussion: "For each damaged image the next step is told.")

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
                try UnusableRepository(what: describe(error)).show(asJSON: json)
                throw DamageFound(message: nil)
            default: throw error
            }
        }
        let found = try check(store)
        try CheckedStore(report: found, steps: steps(found, store.images)).show(asJSON: json)
        if !found.isClean { throw DamageFound(message: nil) }
    }

    private func check(_ store: Store) throws -> StoreReport {
        let options = ImageCheckOptions(metadataOnly: metadataOnly, deep: deep)
        do {
            return try store.checkSynchronously(image, options)
        } catch let error as ImageStoreError {
            // An image that create-image made is checked with the repository: it has nothing besides its EROFS image.
            guard case .noSuchImage = error, let image, try store.images.hasName(image) else { throw error }
            return StoreReport(repository: try store.repository.check(metadataOnly: metadataOnly), images: ImageReport())
        }
    }

    /// What to do about each damaged image, in the order of the faults; then about those whose EROFS images alone are at fault, which only the
    /// repository's level finds.
    private func steps(_ found: StoreReport, _ images: ImageStore) -> [CheckedStore.Step] {
        var steps: [CheckedStore.Step] = []
        var kinds: [ByteString: Set<String>] = [:]
        for problem in found.images.problems { kinds[problem.image, default: []].insert(problem.kind) }
        for problem in found.images.problems where !steps.contains(where: { $0.name == problem.image }) {
            steps.append(.init(name: problem.image, text: FsckAdvice.step(forTag: problem.image, kinds[problem.image] ?? [])))
        }
        guard !found.repository.isOK else { return steps }
        let faults = ImageFaults(found.repository)
        // What cannot be listed is among the faults already, and must not hide them.
        for tag in (try? images.tags()) ?? [] where kinds[tag.name] == nil {
            guard let stored = try? images.image(tag.manifestDigest), stored.allImageIDs.contains(where: faults.concern) else { continue }
            steps.append(.init(name: tag.name, text: FsckAdvice.step(forTag: tag.name, [])))
        }
        let (named, broken) = (try? images.namedImages()) ?? ([], [])
        let names = broken.map(\.name) + named.filter { faults.concern($0.imageID) }.map(\.name)
        for name in names.sorted() { steps.append(.init(name: name, text: FsckAdvice.step(forName: name))) }
        return steps
    }
}

/// The EROFS images that a repository's faults concern.
private struct ImageFaults {
    private let paths: Set<ByteString>
    private let objects: Set<ObjectID>

    init(_ report: FsckReport) {
        paths = Set(report.problems.map(\.path))
        // The object of an image's fault is one that the image needs; that of a digest mismatch is what was found instead.
        objects = Set(report.problems.filter { $0.kind != .objectDigestMismatch }.compactMap(\.object))
    }

    func concern(_ id: ObjectID) -> Bool {
        paths.contains("images/" + ByteString(id.hex)) || paths.contains("objects/" + ByteString(id.objectPath)) || objects.contains(id)
    }
}

/// What fsck found on both levels.
struct CheckedStore: CommandReport {
    /// What to do next about a damaged image.
    struct Step {
        var name: ByteString
        var text: String
    }

    var report: StoreReport
    var steps: [Step]

    var lines: [String] {
        let (repository, images) = (report.repository, report.images)
        let count = repository.problems.count + images.problems.count
        var lines = repository.counts
        lines.append("oci images: \(images.imagesChecked - images.imagesDamaged)/\(images.imagesChecked) ok")
        if images.referrersChecked > 0 {
            lines.append("referrers: \(images.referrersChecked - images.referrersDamaged)/\(images.referrersChecked) ok")
        }
        // The verdict stands behind the counts of both levels.
        lines.append(count == 0 ? "status: ok" : "status: \(count) error(s)")
        for problem in repository.problems { lines.append("  - \(problem)") }
        for problem in images.problems { lines.append("  - \(problem)") }
        for step in steps { lines.append("next step for \(Output.printable(step.name)): \(step.text)") }
        return lines
    }

    var json: JSONValue {
        let images = report.images
        let errors: [JSONValue] = images.problems.map { problem in
            ["type": .string(problem.kind), "image": .string(problem.image.description), "detail": .string(problem.detail)]
        }
        return [
            "ok": .bool(report.isClean), "repository": report.repository.json, "imagesChecked": .count(images.imagesChecked),
            "imagesDamaged": .count(images.imagesDamaged), "referrersChecked": .count(images.referrersChecked),
            "referrersDamaged": .count(images.referrersDamaged), "imageErrors": .array(errors),
        ]
    }
}

/// What fsck says where `meta.json` cannot be used.
private struct UnusableRepository: CommandReport {
    var what: String

    var lines: [String] { ["meta.json: error", "status: 1 error(s)", "  - fsck: metadata-parse-failed: \(what)"] }

    var json: JSONValue {
        [
            "ok": false,
            "repository": [
                "ok": false, "errors": [["type": "metadata-parse-failed", "path": "meta.json", "detail": .string(what)]],
            ],
        ]
    }
}
