public import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
public import ComposefsOCI

struct CreateSnapshot: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .writing(reads: "file of `--upper`") }

    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Store a snapshot of a disk under a name; print its identity.",
        discussion: """
            The virtual machine must be off. A disk that another program has locked (`cfsoci disk grow`, qemu), or that changes while it is read, \
            is refused with exit status 6, and nothing is stored under the name. A file system that was not unmounted cleanly is stored as it is, \
            with a warning: the machine that mounts it applies its journal.

            On ext4 and tmpfs, nothing is stored if what the repository does not have does not fit, and the exit status is 7. A disk that does not \
            fit as a whole is read for that before it is stored.

            The format is never guessed, because a machine can write to its disk what looks like another format. A qcow2 file is stored as it is, and \
            must not have a backing file.

            Example: cfsoci snapshot create ready --upper state.ext4 --image alpine --label stage=ready
            """)

    @Argument(help: "The name.")
    var name: ByteString

    @Option(help: ArgumentHelp("The file of the disk.", valueName: "file"), completion: .file())
    var upper: ByteString

    @Option(
        help: ArgumentHelp("The image whose files the disk changes. By default that of the parent.", valueName: "image"),
        completion: .imageName)
    var image: ByteString?

    @Option(help: ArgumentHelp("The snapshot that this one follows.", valueName: "snapshot"), completion: .snapshotName)
    var parent: ByteString?

    @Option(help: ArgumentHelp("A label; may be repeated.", valueName: "key=value"))
    var label: [String] = []

    @Option(help: ArgumentHelp("The name of the virtual machine, for the descriptor.", valueName: "name"))
    var sandbox: String?

    @Option(help: ArgumentHelp("The format of the file.", valueName: "raw|qcow2"))
    var format: SnapshotDescriptor.DiskFormat = .raw

    @Option(
        help: ArgumentHelp("The file system, for the descriptor. By default ext4, which a raw disk must then have.", valueName: "type"))
    var filesystem: String?

    @Flag(name: .shortAndLong, help: "Let the name leave the snapshot that has it.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func validate() throws {
        if image == nil, parent == nil { throw ValidationError("name the image of the disk with --image, or a snapshot with --parent") }
        for text in label { _ = try Self.label(text) }
    }

    private static func label(_ text: String) throws -> SnapshotDescriptor.Label {
        guard let sign = text.utf8.firstIndex(of: UInt8(ascii: "=")), sign > text.startIndex else {
            throw ValidationError("--label takes KEY=VALUE")
        }
        return SnapshotDescriptor.Label(key: String(text[..<sign]), value: String(text[text.utf8.index(after: sign)...]))
    }

    func run() throws {
        let store = try global.openStore(Self.rights) { $0.readable.append(upper) }
        let snapshots = SnapshotStore(store.images)
        var options = NewSnapshot()
        if let image {
            let found = try store.images.open(image)
            options.image = found.image
            options.imageReference = found.name.utf8Text ?? found.image.manifestDigest.description
        }
        options.format = format
        options.filesystem = filesystem
        options.sourceSandbox = sandbox
        options.labels = try label.map(Self.label)
        options.replaces = force
        let made = try withSnapshotHints {
            options.parent = try parent.map { try snapshots.open($0) }
            return MadeSnapshot(report: try snapshots.create(name, from: upper, options))
        }
        made.warn(global)
        try made.show(asJSON: json)
    }
}

extension SnapshotDescriptor.DiskFormat: ExpressibleByArgument {}
