import ArgumentParser
import ComposefsArchiveCommands
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsJSON
import ComposefsOCI

struct Push: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "push", abstract: "Push an image to a registry.",
        discussion: """
            Layers are re-assembled byte for byte and compressed again, so the manifest gets a new digest, which is printed. If the registry \
            or the store has the original blobs, the digest stays the same. Blobs that the registry has are not sent.

            With --all-platforms, the index that pull --all-platforms has stored is pushed: first its manifests by their digests, then the index \
            itself, unchanged. This needs the original blobs: pull with --all-platforms --keep-blobs.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The destination: HOST/NAME[:TAG] or docker://…, or one of those of export.", completion: .destination)
    var reference: String

    @OptionGroup var pushing: PushingOptions

    @OptionGroup(title: "Registry options") var registry: RegistryArguments

    @OptionGroup var global: GlobalOptions

    func run() throws {
        try send(image, to: reference, pushing, registry.options(global), global)
    }
}

func send(
    _ image: ByteString, to reference: String, _ pushing: PushingOptions, _ registry: RegistryOptions, _ global: GlobalOptions
) throws {
    let destination = try parseReference(reference)
    if destination.isOutput {
        guard !pushing.json else { throw CommandError("--json needs another destination: standard output is the archive", code: .usage) }
        try refuseTerminal()
    }
    let store: Store
    if case .registry = destination {
        store = try global.openStoreUnchanged(.sending) { $0.addRegistry(registry) }
    } else {
        // First without paths: the destination is made once it is known that there is such an image.
        store = try global.openStoreUnchanged(nil)
        try global.confine(CommandRights.exporting.with { $0.limitsPaths = false }, repository: nil, tells: false)
        if pushing.allPlatforms {
            try missingManifests(of: try store.images.openIndex(image).index, in: store.images, pushing.options { _ in })
        } else {
            _ = try store.images.open(image)
        }
        try global.confine(.exporting, repository: global.repositoryPath()) { try $0.addDestination(destination, registry) }
    }
    let display = ProgressDisplay(global, PushState())
    // Before the first line of the report or of an error.
    defer { display.end() }
    if pushing.allPlatforms {
        let result = try store.pushAllPlatforms(image, to: reference, pushing.options { display.show($0) }, registry: registry)
        display.end()
        return try report(result, reference, pushing, global)
    }
    let result = try store.push(image, to: reference, pushing.options { display.show($0) }, registry: registry)
    display.end()
    try report(result, reference, pushing, global)
}

private func report(_ result: PushResult, _ reference: String, _ pushing: PushingOptions, _ global: GlobalOptions) throws {
    if !result.referrersLeftOut.isEmpty {
        global.note(
            "\(result.referrersLeftOut.count) referrers are not sent: they belong to \(result.sourceDigest), or to the index that it was "
                + "pulled from; --referrers rewrite sends them with a new subject, which invalidates signatures")
    }
    warn(of: result.referrersRefused, global)
    if result.isConverted {
        global.note("the image has Docker's format and is written as an OCI image with the digest \(result.manifestDigest)")
    }
    try show(PushReport(result: result, reference: reference), reference, pushing, global)
}

private func report(_ result: IndexPushResult, _ reference: String, _ pushing: PushingOptions, _ global: GlobalOptions) throws {
    if !result.referrersLeftOut.isEmpty {
        global.note(
            "\(result.referrersLeftOut.count) referrers are not sent: they belong to manifests or to an index with other digests; "
                + "--referrers rewrite sends them with a new subject, which invalidates signatures")
    }
    warn(of: result.referrersRefused, global)
    if result.hasDockerFormat {
        global.warn("the image has Docker's format, which is kept with its digests; other programs may not find it in the layout")
    }
    if !result.missing.isEmpty {
        global.note("\(result.missing.count) manifests that the index lists are not stored and not sent")
    }
    try show(IndexPushReport(result: result, reference: reference), reference, pushing, global)
}

private func warn(of refused: [ReferrerProblem], _ global: GlobalOptions) {
    for problem in refused {
        global.warn("the referrer \(problem.digest ?? problem.subject) was refused and is not sent: \(problem.reason)")
    }
}

/// On standard error if an archive is written to standard output.
private func show(_ report: some CommandReport, _ reference: String, _ pushing: PushingOptions, _ global: GlobalOptions) throws {
    if try parseReference(reference).isOutput {
        for line in report.lines { global.note(line) }
    } else {
        try report.show(asJSON: pushing.json)
    }
}

extension ImageReference {
    /// Whether an archive is written to standard output.
    var isOutput: Bool { if case .ociArchive(let location) = self { location.isStream } else { false } }
}

private struct PushReport: CommandReport {
    var result: PushResult
    var reference: String

    private func count(_ outcome: PushedLayer) -> Int { result.layers.count { $0.outcome == outcome } }

    var lines: [String] {
        var lines = [
            "manifest  \(result.manifestDigest)", "config  \(result.configDigest)", "pushed  \(Output.safe(reference))",
            "layers  \(count(.sent)) sent + \(count(.present)) present + \(count(.mounted)) mounted; \(humanBytes(result.bytesSent)) sent",
        ]
        if !result.referrers.isEmpty { lines.append("referrers  \(result.referrers.count) sent") }
        return lines
    }

    var json: JSONValue {
        [
            "reference": .string(reference), "manifestDigest": .text(result.manifestDigest),
            "sourceManifestDigest": .text(result.sourceDigest), "configDigest": .text(result.configDigest),
            "layers": .array(result.layers.map(document)),
            "bytesSent": JSONValue(result.bytesSent), "converted": .bool(result.isConverted), "referrers": .texts(result.referrers),
            "referrersLeftOut": .texts(result.referrersLeftOut), "referrersRefused": problems(result.referrersRefused),
        ]
    }
}

private struct IndexPushReport: CommandReport {
    var result: IndexPushResult
    var reference: String

    /// Each blob counts once.
    private func count(_ outcome: PushedLayer) -> Int {
        var outcomes: [ContentDigest: PushedLayer] = [:]
        for manifest in result.manifests {
            for layer in manifest.layers where outcomes[layer.descriptor.digest] == nil {
                outcomes[layer.descriptor.digest] = layer.outcome
            }
        }
        return outcomes.values.count { $0 == outcome }
    }

    var lines: [String] {
        var lines = [
            "index  \(result.digest)", "manifests  \(result.manifests.count)", "pushed  \(Output.safe(reference))",
            "layers  \(count(.sent)) sent + \(count(.present)) present + \(count(.mounted)) mounted; \(humanBytes(result.bytesSent)) sent",
        ]
        if !result.referrers.isEmpty { lines.append("referrers  \(result.referrers.count) sent") }
        return lines
    }

    var json: JSONValue {
        let manifests = result.manifests.map { manifest -> JSONValue in
            [
                "digest": .text(manifest.digest), "sourceDigest": .text(manifest.sourceDigest),
                "platform": .text(manifest.platform.flatMap { $0.isUnknown ? nil : $0 }),
                "layers": .array(manifest.layers.map(document)),
            ]
        }
        return [
            "reference": .string(reference), "indexDigest": .text(result.digest), "sourceIndexDigest": .text(result.sourceDigest),
            "manifests": .array(manifests), "missing": .texts(result.missing), "bytesSent": JSONValue(result.bytesSent),
            "referrers": .texts(result.referrers), "referrersLeftOut": .texts(result.referrersLeftOut),
            "referrersRefused": problems(result.referrersRefused),
        ]
    }
}

/// A layer that was pushed, in JSON.
private func document(_ layer: (descriptor: Descriptor, outcome: PushedLayer)) -> JSONValue {
    [
        "digest": .text(layer.descriptor.digest), "mediaType": .string(layer.descriptor.mediaType),
        "size": JSONValue(layer.descriptor.size), "outcome": .string(layer.outcome.name),
    ]
}

/// The name in JSON.
func problems(_ problems: [ReferrerProblem]) -> JSONValue {
    .array(
        problems.map { problem in
            [
                "subject": .string(problem.subject.description), "digest": problem.digest.map { .string($0.description) } ?? .null,
                "reason": .string(problem.reason),
            ]
        })
}
