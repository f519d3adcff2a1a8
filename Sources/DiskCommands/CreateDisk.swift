public import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
public import ComposefsOCI

struct CreateDisk: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .writing() }

    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a disk of an image; print the path of each file and its size in bytes.",
        discussion: """
            single    one EROFS image with everything (Linux 5.4)
            flat      one ext4 file system; without --size read-only in practice: no room and no journal
            vmdk      a directory with disk.vmdk and its extents: the merged tree, and an EROFS image for each layer (Linux 5.4)
            layered   a directory of EROFS images, NNNN-DIFFID.erofs from the lowest layer on, for a stack of overlayfs
            fsmeta    one EROFS image that shows the merged tree of the images of `layered`, which are its devices (Linux 5.16): \
            mount -o device=DIR/0000-….erofs,device=… ; the files must be block devices, or mounted as files (Linux 6.12)

            Without --output the repository keeps the disk, and the paths are those of its objects, which must not be changed: any number of \
            machines can read them, and with fs-verity the kernel verifies what they read. A disk that is kept is not made again. It is removed \
            with its image, by `cfsoci disk rm` or by `cfsoci prune --disks`.

            With --output a file is replaced; a directory must be missing or empty. The same layers give the same bytes. A stack of overlayfs \
            cannot show character devices 0:0, and hard links across layers become copies; both are reported.

            On ext4 and tmpfs, a file whose contents do not fit is not begun, and the exit status is 7.

            Example: cfsoci disk create alpine --kind single
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
            "The file or directory to make, outside of the repository.", valueName: "path"), completion: .file())
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
        let request = DiskRequest(kind, tree: tree, size: size?.bytes)
        let made: MadeDisk
        if let output {
            let store = try global.openStore(CommandRights.writingDisks, readOnly: true) { confinement in
                confinement.writable.append(FileDescriptor.split(output).directory)
            }
            let found = try store.images.open(image).image
            made = MadeDisk(try withDiskHints { try ImageDisks(store.images).make(request, of: found, at: output) })
        } else {
            let store = try global.openStore(Self.rights)
            let found = try store.images.open(image).image
            made = MadeDisk(try withDiskHints { try ImageDisks(store.images).keep(request, of: found) }, of: found.manifestDigest)
        }
        for exception in made.exceptions { global.warn(Output.printable(ByteString(exception.description))) }
        try made.show(asJSON: json)
    }
}

extension DiskKind: ExpressibleByArgument {}
extension DiskTree: ExpressibleByArgument {}

/// A disk of an image: made as files, or kept by the store.
struct MadeDisk: CommandReport {
    var request: DiskRequest
    var manifestDigest: ContentDigest
    /// Nil for a kept disk of several files without a descriptor.
    var path: ByteString?
    var files: [DiskFile]
    var exceptions: StackExceptions
    var isKept: Bool

    init(_ report: DiskReport) {
        request = DiskRequest(report.kind, tree: report.tree)
        manifestDigest = report.manifestDigest
        path = report.path
        files = report.files
        exceptions = report.exceptions
        isKept = false
    }

    init(_ disk: KeptDisk, of image: ContentDigest) {
        request = disk.request
        manifestDigest = image
        files = disk.files.map { DiskFile(path: $0.path, size: $0.size, diffID: $0.diffID) }
        path = disk.request.kind == .layered ? nil : files.first?.path
        exceptions = disk.exceptions
        isKept = true
    }

    var lines: [String] { files.map { "\(Output.printable($0.path))  \($0.size)" } }

    var json: JSONValue {
        [
            "kind": .string(request.kind.rawValue), "tree": .string(request.tree.rawValue),
            "manifestDigest": .string(manifestDigest.description), "kept": .bool(isKept), "path": .text(path?.jsonText),
            "files": .array(
                files.map { file in
                    ["path": .string(file.path.jsonText), "size": .integer(Int64(clamping: file.size)), "diffId": .text(file.diffID)]
                }),
            "exceptions": .array(
                exceptions.map { ["kind": .string($0.kind.rawValue), "path": .string($0.path.jsonText)] }),
        ]
    }
}
