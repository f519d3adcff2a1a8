import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsOCI

struct Copy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy", abstract: "Copy an image from another repository to this one.",
        discussion: """
            Objects share their space with those of the other repository if the file system can (reflink), are the same files if they cannot \
            be changed (hard link), or are copied. Each is verified. Artifacts that belong to the image are copied, too.
            """)

    @Argument(help: "The image in the other repository.", completion: .imageNameInOther)
    var image: ByteString

    @Argument(help: "The tag in this repository; by default that in the other one.")
    var name: ByteString?

    @Option(help: ArgumentHelp("The other repository.", valueName: "path"), completion: .directory)
    var from: ByteString

    @Option(help: ArgumentHelp("The number of threads that copy objects.", valueName: "n"))
    var jobs: Int?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs must be at least 1") }
    }

    func run() throws {
        if let name { try ImageTag.check(name) }
        let source: Store
        do {
            // Not opened for reading only: the use of the image is recorded if possible.
            source = try Store.openUnchanged(
                from,
                OpenOptions(
                    willWait: { [note = global.noteTaker, from] in note("waiting for another process that uses \(from)") }))
        } catch let error as RepositoryError {
            var code = ErrorCode(of: error)
            if case .system(let system) = error, system.errno == .noEntry { code = .noSuchRepository }
            throw CommandError("--from \(from): \(error)", code: code)
        }
        // Paths are limited below, when the repository exists.
        try global.confine(CommandRights.copying.with { $0.limitsPaths = false }, repository: nil, tells: false)
        // Checks the arguments first: a typing error makes no repository.
        let found = try source.images.resolve(image)
        if name == nil, found.name == ByteString(found.manifestDigest.description) {
            throw CommandError("\(image) has no tag in \(from); name one: cfsoci copy \(image) NAME --from \(from)")
        }
        let opened = try global.openOrCreateStore(.copying) { confinement in
            confinement.readable = [from]
            confinement.linkable = [from + "/objects"]
        }
        do {
            try copy(source, into: opened.store)
        } catch {
            opened.undo(keepsContent: ErrorCode(of: error).isTransient)
            throw error
        }
    }

    private func copy(_ source: Store, into store: Store) throws {
        let display = ProgressDisplay(global, CopyState())
        defer { display.end() }
        let result = try store.copy(image, from: source, CopyOptions(name: name, jobs: jobs) { display.show($0) })
        display.end()
        try CopyReport(result: result).show(asJSON: json)
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
