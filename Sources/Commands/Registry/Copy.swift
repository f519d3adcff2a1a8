import ArgumentParser
import ComposefsArchiveCommands
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI

struct Copy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy", abstract: "Copy an image from another repository to this one, or all of an index between registries.",
        usage: """
            cfsoci copy [<options>] <image> [<name>] --from <path>
            cfsoci copy [<options>] --all-platforms <image> [<name>] --from <path>
            cfsoci copy [<options>] --all <source> <destination>
            """,
        discussion: """
            From a repository: objects share their space with those of the other repository if the file system can (reflink), are the same \
            files if they cannot be changed (hard link), or are copied. Each is verified. Artifacts that belong to the image are copied, too. With \
            --all-platforms, the images get tags as from pull --all-platforms.

            With --all: the index that SOURCE names, its manifests for all platforms, attestations included, and all their blobs, from a \
            registry, oci:DIR[:TAG] or oci-archive:FILE[:TAG] to another of these; - instead of FILE is standard input or output. All bytes \
            are verified and stay as they are, and so does the digest of the index. No repository is used. What the destination has is not \
            sent, and blobs of the same registry are mounted there.
            """)

    @Argument(help: "The image in the other repository; with --all the source.", completion: .imageNameInOther)
    var image: ByteString

    @Argument(help: "The tag in this repository, by default that in the other one; with --all the destination.")
    var name: ByteString?

    @Option(help: ArgumentHelp("The other repository.", valueName: "path"), completion: .directory)
    var from: ByteString?

    @Flag(help: "With --from: copy the index of that name, and the images for all platforms that it lists and that are there.")
    var allPlatforms = false

    @Flag(help: "Copy an index with all that belongs to it from a registry, layout or archive to another.")
    var all = false

    @Flag(help: "With --all: also copy artifacts that refer to the index or its manifests: signatures, bills of materials and others.")
    var referrers = false

    @Option(help: ArgumentHelp("The number of threads that copy objects, or with --all of blobs at the same time.", valueName: "n"))
    var jobs: Int?

    @Option(help: ArgumentHelp("With --all: the largest manifest or index (default: 4M; at most 64M).", valueName: "size"))
    var maxManifestSize: ByteSize?

    @Option(help: ArgumentHelp("With --all: the deepest nesting of indexes (default: 8; at most 64).", valueName: "n"))
    var maxIndexDepth: UInt64?

    @OptionGroup var signatures: SignaturePolicyArguments

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Registry options (with --all)") var registry: RegistryArguments

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs must be at least 1") }
        guard all else {
            guard from != nil else { throw ValidationError("--from names the repository to copy from; --all copies between registries") }
            guard !referrers else { throw ValidationError("--referrers needs --all: a copy from a repository includes them") }
            guard !registry.isUsed else { throw ValidationError("options for registries need --all") }
            guard maxManifestSize == nil, maxIndexDepth == nil else {
                throw ValidationError("--max-manifest-size and --max-index-depth need --all")
            }
            return
        }
        guard !allPlatforms else { throw ValidationError("--all-platforms needs --from; --all copies all platforms") }
        guard from == nil else { throw ValidationError("--all and --from exclude each other") }
        guard name != nil else { throw ValidationError("--all needs a source and a destination") }
        guard global.repo == nil, !global.user, !global.system else {
            throw ValidationError("--all uses no repository: --repo, --user and --system do not apply")
        }
    }

    func run() throws {
        if let from { try copy(from: from) } else { try copyAll() }
    }

    private func copy(from: ByteString) throws {
        if let name { try ImageTag.check(name) }
        let policy = try signatures.policy()
        let source: Store
        do {
            // Not opened for reading only: the use of the image is recorded if possible.
            source = try Store.openUnchanged(
                from,
                OpenOptions(
                    willWait: { [note = global.noteTaker] in note("waiting for another process that uses \(from)") }))
        } catch let error as RepositoryError {
            var code = ErrorCode(of: error)
            if case .system(let system) = error, system.errno == .noEntry { code = .noSuchRepository }
            throw CommandError("--from \(from): \(error)", code: code)
        }
        // Paths are limited below, when the repository exists.
        try global.confine(CommandRights.copying.with { $0.limitsPaths = false }, repository: nil, tells: false)
        // Checks the arguments first: a typing error makes no repository.
        let found =
            try allPlatforms
            ? source.images.openIndex(image).name
            : source.images.resolve(image).name
        if name == nil, found.utf8Text.flatMap({ ContentDigest($0) }) != nil {
            throw CommandError("\(image) has no tag in \(from); name one: cfsoci copy \(image) NAME --from \(from)")
        }
        let opened = try global.openOrCreateStore(.copying) { confinement in
            confinement.readable = [from]
            confinement.linkable = [from + "/objects"]
        }
        do {
            try copy(source, into: opened.store, policy)
        } catch {
            opened.undo(keepsContent: ErrorCode(of: error).isTransient)
            throw error
        }
    }

    private func copy(_ source: Store, into store: Store, _ policy: LoadedPolicy?) throws {
        let display = ProgressDisplay(global, CopyState())
        defer { display.end() }
        var options = CopyOptions(name: name, jobs: jobs) { display.show($0) }
        options.signaturePolicy = policy
        if allPlatforms {
            let result = try store.copyAllPlatforms(image, from: source, options)
            display.end()
            for missing in result.leftOut {
                global.warn("the manifest \(missing.digest), which the index lists, is left out: \(missing.reason)")
            }
            return try StoredIndexCopyReport(result: result).show(asJSON: json)
        }
        let result = try store.copy(image, from: source, options)
        display.end()
        try CopyReport(result: result).show(asJSON: json)
    }

    // MARK: All of an index

    private func copyAll() throws {
        guard let source = image.utf8Text, let destination = name?.utf8Text else { throw OCIError.invalidReference(image, .notText) }
        let (from, to) = try (parseReference(source), parseReference(destination))
        if to.isOutput {
            guard !json else { throw CommandError("--json needs another destination: standard output is the archive", code: .usage) }
            try refuseTerminal()
        }
        if registry.creds != nil, case .registry(let first) = from, case .registry(let second) = to, first.domain != second.domain {
            throw CommandError(
                "--creds would be sent to both \(first.domain) and \(second.domain); use `cfsoci login`, or --authfile", code: .usage)
        }
        let options = try registry.options(global)
        let policy = try signatures.policy()
        let scratch = environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/var/tmp"
        let isNew = try to.layoutPath.map { try FileDescriptor.currentDirectory.statusIfPresent(at: $0, follow: true) == nil } ?? false
        do {
            try global.confine(.copyingIndexes, repository: nil) { confinement in
                try confinement.addSource(from, options)
                try confinement.addDestination(to, options)
                if from.isArchive || to.isOutput { confinement.writable.append(scratch) }
                if isNew, let path = try to.layoutPath { confinement.removable.append(FileDescriptor.split(path).directory) }
            }
            let display = ProgressDisplay(global, PushState())
            // Before the first line of the report or of an error.
            defer { display.end() }
            var copying = IndexCopyOptions(jobs: jobs, copiesReferrers: referrers) { display.show($0) }
            if let maxManifestSize { copying.limits.manifestBytes = maxManifestSize.bytes }
            if let maxIndexDepth { copying.limits.indexDepth = maxIndexDepth }
            copying.signaturePolicy = policy
            let result = try copyIndex(source, to: destination, copying, registry: options, scratch: scratch)
            display.end()
            try report(result, destination, to)
        } catch {
            // Only an empty directory can be removed.
            if isNew, let path = try? to.layoutPath { try? FileDescriptor.currentDirectory.removeDirectory(at: path) }
            throw error
        }
    }

    private func report(_ result: IndexCopyResult, _ destination: String, _ to: ImageReference) throws {
        if result.hasDockerFormat {
            global.warn("the image has Docker's format, which is kept with its digests; other programs may not find it in the layout")
        }
        for digest in result.blobsLeftOut { global.note("the foreign layer \(digest) is not at the source and is left out") }
        if !result.referrersLeftOut.isEmpty {
            global.warn("\(result.referrersLeftOut.count) referrers have a type that cannot be copied; they are left out")
        }
        for problem in result.referrersUnavailable {
            let what = problem.digest.map { "the referrer \($0)" } ?? "a referrer of \(problem.subject)"
            global.warn("\(what) could not be copied and is left out: \(problem.reason)")
        }
        let report = IndexCopyReport(result: result, destination: destination, showsReferrers: referrers)
        if to.isOutput {
            for line in report.lines { global.note(line) }
        } else {
            try report.show(asJSON: json)
        }
    }
}

extension ImageReference {
    /// The directory of a layout; nil for another reference.
    fileprivate var layoutPath: ByteString? {
        get throws { if case .layout(let location) = self { try location.located().path } else { nil } }
    }

    fileprivate var isArchive: Bool { if case .ociArchive = self { true } else { false } }
}

private struct IndexCopyReport: CommandReport {
    var result: IndexCopyResult
    var destination: String
    /// Whether referrers were requested.
    var showsReferrers: Bool

    private func count(_ outcome: PushedLayer) -> Int { result.blobs.values.count { $0 == outcome } }

    var lines: [String] {
        var lines = ["\(result.isIndex ? "index" : "manifest")  \(result.digest)"]
        if result.isIndex { lines.append("manifests  \(result.manifests.count)") }
        lines += [
            "copied  \(Output.safe(destination))",
            "blobs  \(count(.sent)) sent + \(count(.present)) present + \(count(.mounted)) mounted; \(humanBytes(result.bytesSent)) sent",
        ]
        if showsReferrers { lines.append("referrers  \(result.referrers.count) copied") }
        return lines
    }

    var json: JSONValue {
        [
            "reference": .string(destination), "digest": .text(result.digest), "isIndex": .bool(result.isIndex),
            "manifests": .texts(result.manifests), "nestedIndexes": .texts(result.nestedIndexes), "blobsSent": .count(count(.sent)),
            "blobsPresent": .count(count(.present)), "blobsMounted": .count(count(.mounted)), "blobsLeftOut": .texts(result.blobsLeftOut),
            "bytesSent": JSONValue(result.bytesSent), "referrers": .texts(result.referrers),
            "referrersLeftOut": .texts(result.referrersLeftOut), "referrersUnavailable": problems(result.referrersUnavailable),
        ]
    }
}

private struct StoredIndexCopyReport: CommandReport {
    var result: StoredIndexCopyResult

    var lines: [String] {
        var lines = result.images.flatMap { CopyReport(result: $0).lines + [""] }
        lines += ["index  \(result.digest)", "named  \(Output.printable(result.name))", "manifests  \(result.images.count) copied"]
        if !result.referrers.isEmpty { lines.append("referrers  \(result.referrers.count) copied") }
        return lines
    }

    var json: JSONValue {
        [
            "images": .array(result.images.map { CopyReport(result: $0).json }),
            "index": [
                "digest": .text(result.digest), "name": .string(result.name.jsonText), "leftOut": leftOut(result.leftOut),
                "referrers": .texts(result.referrers),
            ],
        ]
    }
}

private struct CopyReport: CommandReport {
    var result: CopyResult

    /// Objects and bytes that were written: of the image's files, and of its documents and streams.
    private var copied: Int { result.objects.copied + result.statistics.newObjects }
    private var copiedBytes: UInt64 { result.objects.copiedBytes + result.statistics.storedBytes }
    private var present: Int { result.objects.present + result.statistics.presentObjects }

    var lines: [String] {
        var lines = ["manifest  \(result.manifestDigest)", "config  \(result.configDigest)"]
        if let id = result.imageID { lines.append("image  \(id)") }
        lines += [
            "tagged  \(Output.printable(result.name))", "layers  \(result.newLayers) new + \(result.presentLayers) present",
            "objects  \(result.objects.cloned) cloned + \(result.objects.linked) linked + \(copied) copied + \(present) present; "
                + "\(humanBytes(copiedBytes)) copied",
        ]
        if !result.referrers.isEmpty { lines.append("referrers  \(result.referrers.count) copied") }
        return lines
    }

    var json: JSONValue {
        [
            "manifestDigest": .text(result.manifestDigest), "configDigest": .text(result.configDigest),
            "imageId": .text(result.imageID?.hex), "name": .string(result.name.jsonText), "layersNew": .count(result.newLayers),
            "layersPresent": .count(result.presentLayers), "objectsCloned": .count(result.objects.cloned),
            "objectsLinked": .count(result.objects.linked), "objectsCopied": .count(copied), "objectsPresent": .count(present),
            "bytesCopied": JSONValue(copiedBytes), "referrers": .texts(result.referrers),
        ]
    }
}
