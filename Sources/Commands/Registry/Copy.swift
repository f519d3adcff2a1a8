import ArgumentParser
import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsOCI

struct Copy: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Copy an image out of another repository into this one.",
        discussion: """
            Objects share their space with the other repository's where the file system can (reflink), are the same files where they cannot \
            be changed (hard link), or are copied; each is verified. Artifacts that belong to the image come along.
            """)

    @Argument(help: "The image in the other repository.")
    var image: ByteString

    @Argument(help: "The tag here; the other repository's where left out.")
    var name: ByteString?

    @Option(help: ArgumentHelp("The other repository.", valueName: "path"))
    var from: ByteString

    @Option(help: ArgumentHelp("How many threads bring objects.", valueName: "n"))
    var jobs: Int?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs takes a number from 1 up") }
    }

    func run() throws {
        if let name { try ImageTag.check(name) }
        let source: Store
        do {
            source = try Store.open(
                from,
                OpenOptions(
                    readOnly: true, willWait: { [note = global.noteTaker, from] in note("waiting for another process that uses \(from)") }))
        } catch let error as RepositoryError {
            throw CommandError("--from \(from): \(error)")
        }
        // What was typed is looked at first: a slip of the fingers makes no repository.
        let found = try source.images.resolve(image)
        if name == nil, found.name == ByteString(found.manifestDigest.description) {
            throw CommandError("\(image) has no tag in \(from); give it one here: cfsoci copy \(image) NAME --from \(from)")
        }
        let store = try global.openOrCreateStore()
        let display = ProgressDisplay(global, CopyState())
        defer { display.end() }
        let result = try store.copySynchronously(image, from: source, CopyOptions(name: name, jobs: jobs) { display.show($0) })
        display.end()
        try report(result)
    }

    private func report(_ result: CopyResult) throws {
        let counts = result.objects
        let other = result.statistics
        if json {
            return try Output.print([
                "manifestDigest": .string(result.manifestDigest.description), "configDigest": .string(result.configDigest.description),
                "imageId": result.imageID.map { .string($0.hex) } ?? .null, "name": .string(result.name.jsonText),
                "layersNew": .integer(Int64(result.newLayers)), "layersPresent": .integer(Int64(result.presentLayers)),
                "objectsCloned": .integer(Int64(counts.cloned)), "objectsLinked": .integer(Int64(counts.linked)),
                "objectsCopied": .integer(Int64(counts.copied + other.newObjects)),
                "objectsPresent": .integer(Int64(counts.present + other.presentObjects)),
                "bytesCopied": JSONValue(counts.copiedBytes + other.storedBytes),
                "referrers": .array(result.referrers.map { .string($0.description) }),
            ])
        }
        try Output.print("manifest  \(result.manifestDigest)")
        try Output.print("config  \(result.configDigest)")
        if let id = result.imageID { try Output.print("image  \(id)") }
        try Output.print("tagged  \(Output.printable(result.name))")
        try Output.print("layers  \(result.newLayers) new + \(result.presentLayers) present")
        try Output.print(
            "objects  \(counts.cloned) cloned + \(counts.linked) linked + \(counts.copied + other.newObjects) copied + "
                + "\(counts.present + other.presentObjects) present; \(humanBytes(counts.copiedBytes + other.storedBytes)) copied")
        if !result.referrers.isEmpty { try Output.print("referrers  \(result.referrers.count) copied") }
    }
}
