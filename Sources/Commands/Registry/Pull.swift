public import ArgumentParser
import ComposefsCommandSupport
import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsOCI
import ComposefsOCIModel
import ComposefsTransfer
import ComposefsTransports

struct Pull: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Pull an image into the repository.",
        discussion: """
            REFERENCE is a registry reference (alpine, quay.io/org/name:tag, …@sha256:…), docker://…, oci:DIR[:TAG], \
            oci-archive:FILE[:TAG], docker-archive:FILE[:TAG|:@N], dir:DIR or containers-storage:NAME[@ID]. - instead of FILE is standard \
            input.
            """)

    @Argument(help: "The image to pull.", completion: .source)
    var reference: String

    @Argument(help: "The tag; by default the canonical reference.")
    var name: ByteString?

    @Option(
        help: ArgumentHelp("The platform of the image to pull from an index; by default that of the host.", valueName: "os/arch[/variant]"))
    var platform: String?

    @Flag(help: "Also keep the compressed blobs of layers, so that push and export send them unchanged, with the same digests.")
    var keepBlobs = false

    @Flag(help: "Also store artifacts that refer to the image: signatures, bills of materials and others.")
    var referrers = false

    @Flag(
        help: ArgumentHelp(
            "Fetch foreign layers that the registry does not have from the addresses in the manifest: from other hosts, which the author of the "
                + "image chose."))
    var foreignLayers = false

    @Flag(
        help: ArgumentHelp(
            "Pull the images for all platforms, and the index. Each image gets a tag with its platform after the name, that of this host also the "
                + "name alone, which the index gets, too."))
    var allPlatforms = false

    @Option(
        help: ArgumentHelp(
            "When to ask the registry: if the image is missing here; whether it has a newer one, unless it is unreachable; always; or never.",
            valueName: "missing|newer|always|never"))
    var policy: PullPolicy = .missing

    @Flag(help: "Also make the image for booting and record it with the image; see `cfsoci boot image`.")
    var bootable = false

    @Option(
        help: ArgumentHelp(
            "With --bootable: the identifier that the image for booting must have, with whatever extended attributes and EROFS format. "
                + "An image that has none with it is refused.", valueName: "hex"))
    var expectedDigest: String?

    @Option(
        help: ArgumentHelp(
            "Also make a disk of the image while its layers arrive, and keep it in the repository; see `cfsoci disk create`. May be repeated.",
            valueName: "layered|fsmeta|vmdk|single|flat"))
    var disk: [DiskKind] = []

    @Flag(help: "Print JSON.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "The fs-verity digests and signatures of the image: use them; require them, and ask the registry for them; or ignore them.",
            valueName: "use|require|ignore"))
    var imageSignatures: ImageSignatures = .use

    @Flag(help: "Refuse an image that is not sealed: whose config does not state the fs-verity digest of its EROFS image, or another one.")
    var requireSeal = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup(title: "Registry options") var registry: RegistryArguments

    @OptionGroup(title: "Transfer options") var transfer: TransferArguments

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !(allPlatforms && policy == .never) else {
            throw ValidationError("--all-platforms and --policy never exclude each other: the index is always asked for")
        }
        guard !(allPlatforms && !disk.isEmpty) else {
            throw ValidationError("--disk makes a disk of one image; --all-platforms pulls several")
        }
        guard let expectedDigest else { return }
        guard bootable else { throw ValidationError("--expected-digest needs --bootable") }
        guard !allPlatforms else { throw ValidationError("--expected-digest names one image; --all-platforms pulls several") }
        _ = try ObjectID(expected: expectedDigest, option: "--expected-digest")
    }

    func run() throws {
        // Checks the arguments first: a typing error makes no repository.
        let source = try parseReference(reference)
        let platform = try platform.map { try Platform(parsing: $0) } ?? .host
        if let name { try ImageTag.check(name) }
        var registry = try registry.options(global)
        let signer = try signing.signer()
        let policy = try transfer.signatures.policy()
        let opened = try global.openOrCreateStore(Self.pulling, signer: signer) { [registry] confinement in
            try confinement.addSource(source, registry)
        }
        do {
            try pull(into: opened.store, platform, policy, &registry)
        } catch {
            opened.undo(keepsContent: ErrorCode(of: error).isTransient)
            throw error
        }
    }

    private func pull(
        into store: Store, _ platform: Platform, _ signatures: LoadedPolicy?, _ registry: inout RegistryOptions
    ) throws {
        // Starts a thread, so the process is confined before.
        let display = ProgressDisplay(global, PullState(.resolving(reference)))
        // Before the first line of the report or of an error.
        defer { display.end() }
        var options = PullOptions(platform: platform, name: name, observer: { display.show($0) })
        options.imageSignatures = imageSignatures
        options.requiresSeal = requireSeal
        options.keepsBlobs = keepBlobs
        options.storesReferrers = referrers
        if bootable {
            options.bootImages =
                try expectedDigest.map { .matching(try ObjectID(expected: $0, option: "--expected-digest")) }
                ?? .all(.allowlistOnly)
        }
        options.disks = disk.map { DiskRequest($0) }
        transfer.apply(to: &options, &registry)
        options.policy = policy
        options.signaturePolicy = signatures
        if Sandbox.usesNetwork { options.downloadsEnded = { try Sandbox.endNetwork() } }
        registry.fetchesForeignLayers = foreignLayers
        let results =
            try allPlatforms
            ? store.pullAllPlatforms(reference, options, registry: registry)
            : [store.pull(reference, options, registry: registry)]
        display.end()
        for result in results { try comment(on: result, platform) }
        for missing in results.first?.index?.leftOut ?? [] {
            global.warn("the manifest \(missing.digest), which the index lists, is left out: \(missing.reason)")
        }
        let reports = results.map { PullReport(result: $0, showsPlatform: allPlatforms, showsReferrers: referrers) }
        if allPlatforms {
            try PullReports(reports: reports).show(asJSON: json)
        } else {
            for report in reports { try report.show(asJSON: json) }
        }
    }

    /// Notes for people in addition to the report.
    private func comment(on result: PullResult, _ wanted: Platform) throws {
        if let before = result.previousManifestDigest, global.progressStyle != .json, global.progressStyle != .plain {
            global.note("tag moved from \(before) to \(result.manifestDigest)")
        }
        if case .unreachable(let reason) = result.outcome {
            global.warn("the registry is unreachable, and the stored image is used: \(reason)")
        }
        // Without --platform, an image for another platform is only noted.
        if self.platform != nil, let platform = result.platform, !allPlatforms, !platform.os.isEmpty, !platform.architecture.isEmpty,
            wanted.rank(of: platform) == nil
        {
            global.warn("the image is for \(platform), not for \(wanted)")
        }
        if !result.referrersLeftOut.isEmpty {
            global.warn("\(result.referrersLeftOut.count) referrers have a type that cannot be stored; they are left out")
        }
        for problem in result.referrersUnavailable {
            let what = problem.digest.map { "the referrer \($0)" } ?? "a referrer of \(problem.subject)"
            global.warn("\(what) could not be fetched and is left out: \(problem.reason)")
        }
        if result.signatures.unknown > 0 {
            global.warn(
                "\(result.signatures.unknown) signatures of the image are left out: their certificate is not in the kernel's "
                    + ".fs-verity keyring")
        }
        if global.verbose { try showProfile(result) }
    }

    /// The peak memory of this process, VmHWM of proc(5): getrusage(2) includes the process that started this one.
    private static func peakMemory() -> Int? {
        guard let status = try? FileDescriptor.open("/proc/self/status", .readOnly).readAll(limit: 1 << 16) else { return nil }
        let line = String(decoding: status, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { Int($0) }.first
    }

    /// The time of each phase, and the peak memory of the process.
    private func showProfile(_ result: PullResult) throws {
        let phases = result.profile.map { time in
            let milliseconds = Int((time.seconds * 1000).rounded())
            return "\(time.phase) \(milliseconds / 1000).\(String(1000 + milliseconds % 1000).dropFirst())s"
        }
        global.note("profile  " + phases.joined(separator: "  "))
        if let peak = Self.peakMemory() { global.note("peak memory \(peak) KiB") }
    }
}

extension ImageSignatures: ExpressibleByArgument {}

extension PullPolicy: ExpressibleByArgument {}
