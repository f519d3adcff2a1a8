import ArgumentParser
import Bytes
import ComposefsOCI
import Compression
import Hashing
import JSON

/// How an image leaves the store.
struct PushingOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How layers are packed; as the manifest says where left out. Layers whose original blobs are at hand stay as they are.",
            valueName: "gzip|zstd|none"))
    var compression: LayerCompression?

    @Option(help: ArgumentHelp("gzip: 1 to 9 (6), zstd: 1 to 22 (3).", valueName: "n"))
    var compressionLevel: Int?

    @Option(help: ArgumentHelp("How many layers are sent at the same time.", valueName: "n"))
    var jobs: Int?

    @Option(
        help: ArgumentHelp(
            "Signatures and other artifacts of the image: keep sends them where the manifest's digest stays, rewrite always, with their "
                + "subject changed.",
            valueName: "keep|rewrite|none"))
    var referrers: ReferrerChoice = .keep

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let jobs, jobs < 1 { throw ValidationError("--jobs takes a number from 1 up") }
        guard let level = compressionLevel else { return }
        guard let format = compression?.format else { throw ValidationError("--compression-level needs --compression") }
        guard let levels = PushOptions.levels(of: format) else { throw ValidationError("--compression none has no level") }
        guard levels.contains(level) else {
            throw ValidationError("--compression-level of \(format.name) is \(levels.lowerBound) to \(levels.upperBound)")
        }
    }

    func options(_ observer: @escaping PushObserver) -> PushOptions {
        PushOptions(
            compression: compression?.format, level: compressionLevel, jobs: jobs, referrers: referrers.policy, observer: observer)
    }
}

enum LayerCompression: String, ExpressibleByArgument, CaseIterable {
    case gzip, zstd, none

    var format: CompressionFormat {
        switch self {
        case .gzip: .gzip
        case .zstd: .zstd
        case .none: .none
        }
    }
}

enum ReferrerChoice: String, ExpressibleByArgument, CaseIterable {
    case keep, rewrite, none

    var policy: PushOptions.Referrers {
        switch self {
        case .keep: .whereUnchanged
        case .rewrite: .rewritten
        case .none: .none
        }
    }
}

struct Push: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Send an image to a registry.",
        discussion: """
            Layers are re-assembled byte for byte and packed again, so the manifest gets another digest, which is printed; where the \
            registry or the store has the original blobs, it stays as it is. Blobs that the registry has are not sent.
            """)

    @Argument(help: "The image.")
    var image: ByteString

    @Argument(help: "Where to: HOST/NAME[:TAG] or docker://…; also what export takes.")
    var reference: String

    @OptionGroup var pushing: PushingOptions

    @OptionGroup(title: "Registry options") var registry: RegistryArguments

    @OptionGroup var global: GlobalOptions

    func run() throws {
        _ = try parseReference(reference)
        try send(image, to: reference, pushing, registry.options(global), global)
    }
}

struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write an image into an OCI layout or an archive of one.",
        discussion: """
            As push, but to oci:DIR[:TAG] or oci-archive:FILE[:TAG]. A directory is made where it is missing, and other images in it stay; \
            a file is replaced.
            """)

    @Argument(help: "The image.")
    var image: ByteString

    @Argument(help: "Where to: oci:DIR[:TAG] or oci-archive:FILE[:TAG].")
    var destination: String

    @OptionGroup var pushing: PushingOptions

    @OptionGroup var global: GlobalOptions

    func run() throws {
        if case .registry = try parseReference(destination) {
            throw CommandError(
                "\"\(destination)\" is no file or directory; write oci:DIR[:TAG] or oci-archive:FILE[:TAG], or use push for a registry")
        }
        try send(image, to: destination, pushing, RegistryOptions(), global)
    }
}

private func send(
    _ image: ByteString, to reference: String, _ pushing: PushingOptions, _ registry: RegistryOptions, _ global: GlobalOptions
) throws {
    let store = try global.openStore()
    let display = ProgressDisplay(global, PushState())
    // Before the first line of the report, and before an error's.
    defer { display.end() }
    let result = try store.pushSynchronously(image, to: reference, pushing.options { display.show($0) }, registry: registry)
    display.end()
    try report(result, reference, pushing, global)
}

private func report(_ result: PushResult, _ reference: String, _ pushing: PushingOptions, _ global: GlobalOptions) throws {
    func count(_ outcome: PushedLayer) -> Int { result.layers.count { $0.outcome == outcome } }
    if !result.referrersLeftOut.isEmpty {
        global.note(
            "\(result.referrersLeftOut.count) referrers stay behind: they belong to \(result.sourceDigest); --referrers rewrite sends them "
                + "with another subject, which ends the validity of signatures")
    }
    if pushing.json {
        return try Output.print([
            "reference": .string(reference), "manifestDigest": .string(result.manifestDigest.description),
            "sourceManifestDigest": .string(result.sourceDigest.description), "configDigest": .string(result.configDigest.description),
            "layers": .array(
                result.layers.map { layer in
                    [
                        "digest": .string(layer.descriptor.digest.description), "mediaType": .string(layer.descriptor.mediaType),
                        "size": JSONValue(layer.descriptor.size), "outcome": .string(name(layer.outcome)),
                    ]
                }),
            "bytesSent": JSONValue(result.bytesSent),
            "referrers": .array(result.referrers.map { .string($0.description) }),
            "referrersLeftOut": .array(result.referrersLeftOut.map { .string($0.description) }),
        ])
    }
    try Output.print("manifest  \(result.manifestDigest)")
    try Output.print("config  \(result.configDigest)")
    try Output.print("pushed  \(reference)")
    try Output.print(
        "layers  \(count(.sent)) sent + \(count(.present)) present + \(count(.mounted)) mounted; \(humanBytes(result.bytesSent)) sent")
    if !result.referrers.isEmpty { try Output.print("referrers  \(result.referrers.count) sent") }
}

func name(_ outcome: PushedLayer) -> String {
    switch outcome {
    case .present: "present"
    case .mounted: "mounted"
    case .sent: "sent"
    }
}
