public import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
public import ComposefsOCI

struct CreateDisk: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? {
        CommandRights(.reads, writes: "directory of the output", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
    }

    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a disk of an image, verified; print each file and its size in bytes.",
        discussion: """
            single    one EROFS image with everything (Linux 5.4)
            flat      one ext4 file system; without --size read-only in practice: no room and no journal
            vmdk      a directory with disk.vmdk and its extents: the merged tree, and an EROFS image for each layer (Linux 5.4)
            layered   a directory of EROFS images, NNNN-DIFFID.erofs from the lowest layer on, for a stack of overlayfs
            fsmeta    one EROFS image that shows the merged tree of the images of `layered`, which are its devices (Linux 5.16): \
            mount -o device=DIR/0000-….erofs,device=… ; the files must be block devices, or mounted as files (Linux 6.12)

            A file is replaced; a directory must be missing or empty. The same image gives the same bytes. A stack of overlayfs cannot show \
            character devices 0:0, and hard links across layers become copies; both are reported.

            Example: cfsoci disk create alpine --kind single -o alpine.erofs
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Option(help: ArgumentHelp("What is made.", valueName: "layered|fsmeta|vmdk|single|flat"))
    var kind: DiskKind

    @Option(
        help: ArgumentHelp(
            "The tree: that of the layers with all extended attributes, or exactly that of the composefs image (not for layered).",
            valueName: "oci|composefs"))
    var tree: DiskTree = .oci

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "The file or directory. By default, in the current directory, the first digits of the manifest's digest and the kind.",
            valueName: "path"), completion: .file())
    var output: ByteString?

    @Option(
        help: ArgumentHelp(
            "The size of a flat disk, which then has a journal and can be mounted for writing: bytes, or a number with K, M, G or T.",
            valueName: "size"))
    var size: ByteSize?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func validate() throws {
        if kind == .layered, tree == .composefs {
            throw ValidationError("--kind layered excludes --tree composefs: a layer has its own tree")
        }
        if size != nil, kind != .flat { throw ValidationError("--size applies only to --kind flat") }
    }

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true) { confinement in
            confinement.writable.append(output.map { FileDescriptor.split($0).directory } ?? ".")
        }
        let found = try store.images.open(image).image
        let path = output ?? ByteString("\(found.manifestDigest.hex.prefix(12)).\(kind.suffix)")
        let report = try withDiskHints {
            try ImageDisks(store.images).make(kind, of: found, tree, size: size?.bytes, at: path)
        }
        for exception in report.exceptions { global.warn(Output.printable(ByteString(exception.description))) }
        try MadeDisk(report: report).show(asJSON: json)
    }
}

extension DiskKind: ExpressibleByArgument {
    /// The end of the default name.
    fileprivate var suffix: String {
        switch self {
        case .layered: "layers"
        case .fsmeta: "fsmeta.erofs"
        case .vmdk: "disk"
        case .single: "erofs"
        case .flat: "ext4"
        }
    }
}

extension DiskTree: ExpressibleByArgument {}

private struct MadeDisk: CommandReport {
    var report: DiskReport

    var lines: [String] { report.files.map { "\(Output.printable($0.path))  \($0.size)" } }

    var json: JSONValue {
        [
            "kind": .string(report.kind.rawValue), "tree": .string(report.tree.rawValue),
            "manifestDigest": .string(report.manifestDigest.description), "path": .string(report.path.jsonText),
            "files": .array(
                report.files.map { file in
                    ["path": .string(file.path.jsonText), "size": .integer(Int64(clamping: file.size)), "diffId": .text(file.diffID)]
                }),
            "exceptions": .array(
                report.exceptions.map { ["kind": .string($0.kind.text), "path": .string($0.path.jsonText)] }),
        ]
    }
}

extension StackException.Kind {
    fileprivate var text: String {
        switch self {
        case .whiteoutDevice: "whiteoutDevice"
        case .linkAcrossLayers: "linkAcrossLayers"
        }
    }
}
