import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootPrepare: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .preparing }

    static let configuration = CommandConfiguration(
        commandName: "prepare", abstract: "Put what boots an image on a boot partition, and make its deployment.",
        discussion: """
            The image for booting is recorded with the image. Kernel and initial RAM disk are written under names made of their content, so \
            that entries share them, then the entry: a power cut at any point leaves the old entries or the new one, complete. A unified \
            kernel image is written as it is; its command line must name the image.

            The deployment is state/deploy/ID beside the repository. Local changes to /etc of the deployment that runs, or else of the next \
            one, are carried over: what was changed locally stays, even if the new image changed it too. Changes that are made between this \
            command and the next boot are not; repeat the command then. All deployments share one /var, which starts as in the first image. A \
            deployment that has been booted keeps its own /etc when it is prepared again.

            Example: cfsoci boot prepare debian --boot /efi --cmdline "rw quiet"
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Option(help: ArgumentHelp("The boot partition, mounted: an EFI system partition or /boot.", valueName: "dir"), completion: .directory)
    var boot: ByteString

    @OptionGroup var sysroot: SysrootOption

    @Option(
        help: ArgumentHelp(
            "What to boot, by its name or path in `cfsoci boot entries`; by default the newest of the first kind that the image has.",
            valueName: "name"))
    var kernel: ByteString?

    @Option(help: ArgumentHelp("The entry's name, without a suffix. An entry of that name is replaced.", valueName: "id"))
    var entry: ByteString?

    @Option(help: ArgumentHelp("The directory on the boot partition for kernels and initial RAM disks.", valueName: "dir"))
    var subdir: ByteString = "composefs"

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Kernel arguments; may be repeated. They replace those of the image's entry with the same keys.", valueName: "arguments"))
    var cmdline: [ByteString] = []

    @Option(help: ArgumentHelp("Which extended attributes are kept.", valueName: "allowlist-only|keep-user-xattrs"))
    var xattrs: XattrMode = .allowlistOnly

    @Option(
        help: ArgumentHelp(
            "Let the boot loader try the entry this often before it takes the next one (systemd-bless-boot marks a good boot).",
            valueName: "n"))
    var tries: Int?

    @Flag(help: "Start with the image's own /etc instead of carrying local changes over.")
    var newEtc = false

    @Flag(help: "Give the deployment a /var of its own, which starts as in the image.")
    var ownVar = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func validate() throws {
        if let tries, !(1...99).contains(tries) { throw ValidationError("--tries must be from 1 to 99") }
        guard !boot.isEmpty else { throw ValidationError("--boot is empty") }
        guard !subdir.bytes.allSatisfy({ $0 == UInt8(ascii: "/") }) else { throw ValidationError("--subdir must name a directory") }
    }

    func run() throws {
        let global = try sysroot.applied(to: global)
        let store = try global.openStore(Self.rights) { confinement in
            try SysrootOption.allowState(of: global, writes: true, &confinement)
            confinement.writable.append(boot)
        }
        let deployments = try Deployments(beside: store.repository, sysroot: sysroot.sysroot)
        var options = BootPreparation()
        options.resource = kernel
        options.entry = entry
        options.subdirectory = subdir
        options.arguments = KernelCommandLine(cmdline.flatMap { KernelCommandLine(parsing: $0.bytes).arguments })
        options.filtering = xattrs.filtering
        options.attempts = tries
        options.mergesEtc = !newEtc
        options.hasOwnVar = ownVar
        let prepared = try store.images.prepareBoot(image, on: try BootPartition(boot), in: deployments, options)
        tell(prepared)
        try PreparedReport(prepared: prepared).show(asJSON: json)
    }

    private func tell(_ prepared: PreparedBoot) {
        if case .merged(_, _, _, let conflicts) = prepared.etc {
            for path in conflicts {
                global.note("/etc\(Output.printable(path)): changed locally and in the new image; it is as it was locally")
            }
        }
        switch prepared.var {
        case .shared, .own: break
        case .adopted(let id): global.note("the /var of the deployment \(id.hex.prefix(12)) is the one that deployments share now")
        case .sharedBesideOwn(let id):
            global.note("the deployment \(id.hex.prefix(12)) has a /var of its own; what is in it is not in that of the new one")
        }
        if prepared.globalAddons > 0 {
            global.note(
                "the image has \(prepared.globalAddons) addons for all unified kernel images, which are not installed: they would change other entries too"
            )
        }
        if !prepared.isNext { global.note("loader/loader.conf names another entry, which stays the default") }
    }
}

private struct PreparedReport: CommandReport {
    var prepared: PreparedBoot

    var lines: [String] {
        [
            "image  \(prepared.id.hex)", "entry  \(Output.printable(prepared.entry.id))", "etc    \(etc)",
            "files  \(prepared.filesWritten) written + \(prepared.filesShared) shared; \(prepared.bytesWritten) bytes",
        ]
    }

    private var etc: String {
        switch prepared.etc {
        case .new: "as in the image"
        case .unchanged: "as it was"
        case .merged(let from, let kept, let removed, let conflicts):
            "from \(from.hex.prefix(12)): \(kept.count) changed + \(removed.count) removed locally; \(conflicts.count) changed by the image, too"
        }
    }

    var json: JSONValue {
        [
            "imageId": .string(prepared.id.hex), "entry": .string(prepared.entry.id.jsonText),
            "path": .string(prepared.entry.path.jsonText),
            "isNext": .bool(prepared.isNext), "replaced": .array(prepared.replaced.map { .string($0.jsonText) }),
            "filesWritten": .count(prepared.filesWritten), "filesShared": .count(prepared.filesShared),
            "bytesWritten": .integer(Int64(clamping: prepared.bytesWritten)), "etc": etcJSON, "var": .string(varName),
        ]
    }

    private var varName: String {
        switch prepared.var {
        case .shared, .sharedBesideOwn: "shared"
        case .adopted: "adopted"
        case .own: "own"
        }
    }

    private var etcJSON: JSONValue {
        func paths(_ paths: [ByteString]) -> JSONValue { .array(paths.map { .string(("/etc" + $0).jsonText) }) }
        switch prepared.etc {
        case .new: return ["start": "image"]
        case .unchanged: return ["start": "deployment"]
        case .merged(let from, let kept, let removed, let conflicts):
            return [
                "start": "merge", "from": .string(from.hex), "kept": paths(kept), "removed": paths(removed), "conflicts": paths(conflicts),
            ]
        }
    }
}
