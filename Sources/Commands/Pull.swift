public import ArgumentParser
public import ComposefsOCI
import LinuxSystem

struct Pull: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring an image into the repository.",
        discussion: """
            REFERENCE is a registry reference (alpine, quay.io/org/name:tag, …@sha256:…), docker://…, oci:DIR[:TAG], \
            oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], dir:DIR or containers-storage:NAME.
            """)

    @Argument(help: "What to pull.")
    var reference: String

    @Argument(help: "The tag; the canonical reference where left out.")
    var name: ByteString?

    @Option(help: ArgumentHelp("Which image of several; the host's where left out.", valueName: "os/arch[/variant]"))
    var platform: String?

    @Flag(help: "Keep the blobs that layers come in too, so that push and export send them as they are, with the same digests.")
    var keepBlobs = false

    @Flag(help: "Print JSON.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "What comes with the image of fs-verity digests and signatures: use it; require it, and ask a registry for it; or ignore it.",
            valueName: "use|require|ignore"))
    var imageSignatures: ImageSignatures = .use

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup(title: "Registry options") var registry: RegistryArguments

    @OptionGroup(title: "Transfer options") var transfer: TransferArguments

    @OptionGroup var global: GlobalOptions

    func run() throws {
        // What was typed is looked at first: a slip of the fingers makes no repository.
        _ = try parseReference(reference)
        let platform = try platform.map { try Platform(parsing: $0) } ?? .host
        if let name { try ImageTag.check(name) }
        var registry = try registry.options(global)
        let signer = try signing.signer()
        let display = ProgressDisplay(global, reference: reference)
        // Before the first line of the report, and before an error's.
        defer { display.end() }
        let store = try global.openOrCreateStore(signer: signer)
        var options = PullOptions(platform: platform, name: name, observer: { display.show($0) })
        options.imageSignatures = imageSignatures
        options.keepsBlobs = keepBlobs
        transfer.apply(to: &options, &registry)
        let result = try store.pullSynchronously(reference, options, registry: registry)
        display.end()
        if result.signatures.unknown > 0 {
            global.note(
                "warning: \(result.signatures.unknown) signatures of the image are left out: their certificate is not in the kernel's "
                    + ".fs-verity keyring")
        }
        if global.verbose { try showProfile(result) }
        try report(result)
    }

    private func report(_ result: PullResult) throws {
        let counts = result.statistics
        if json {
            try Output.print([
                "manifestDigest": .string(result.manifestDigest.description), "configDigest": .string(result.configDigest.description),
                "imageId": result.imageID.map { .string($0.hex) } ?? .null, "name": .string(result.name.jsonText),
                "layersNew": .integer(Int64(result.newLayers)), "layersPresent": .integer(Int64(result.presentLayers)),
                "objectsNew": .integer(Int64(counts.newObjects)), "objectsPresent": .integer(Int64(counts.presentObjects)),
                "bytesStored": JSONValue(counts.storedBytes), "bytesInline": JSONValue(counts.inlineBytes),
                "objectsSigned": .integer(Int64(result.signatures.signed)),
            ])
            return
        }
        try Output.print("manifest  \(result.manifestDigest)")
        try Output.print("config  \(result.configDigest)")
        if let id = result.imageID { try Output.print("image  \(id)") }
        try Output.print("tagged  \(Output.printable(result.name))")
        try Output.print("layers  \(result.newLayers) new + \(result.presentLayers) present")
        try Output.print(
            "objects  \(counts.newObjects) new + \(counts.presentObjects) present; \(humanBytes(counts.storedBytes)) stored, "
                + "\(humanBytes(counts.inlineBytes)) in line")
        if result.signatures.signed > 0 { try Output.print("signed  \(result.signatures.signed)") }
    }

    /// The process's own peak, VmHWM of proc(5): getrusage(2) counts what the process that started this one had in memory.
    private static func peakMemory() -> Int? {
        guard let status = try? FileDescriptor.open("/proc/self/status", .readOnly).readAll(limit: 1 << 16) else { return nil }
        let line = String(decoding: status, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { Int($0) }.first
    }

    /// What the time went into, and the process's peak memory.
    private func showProfile(_ result: PullResult) throws {
        let phases = result.profile.map { phase, seconds in
            let milliseconds = Int((seconds * 1000).rounded())
            return "\(phase) \(milliseconds / 1000).\(String(1000 + milliseconds % 1000).dropFirst())s"
        }
        Output.note("profile  " + phases.joined(separator: "  "))
        if let peak = Self.peakMemory() { Output.note("peak memory \(peak) KiB") }
    }
}

extension ImageSignatures: ExpressibleByArgument {}
