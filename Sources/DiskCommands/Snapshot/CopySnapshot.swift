import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct RestoreSnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? {
        CommandRights(.reads, writes: "directory of the output", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
    }

    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Write the disk of a snapshot to a new file, verified; print its path and size in bytes.",
        discussion: """
            The file is sparse, and shares blocks with the repository if the file system can. It has its name only when it is complete and durable; an \
            existing file is never replaced.

            Example: cfsoci snapshot restore ready state.ext4
            """)

    @Argument(help: "The snapshot.", completion: .snapshotName)
    var snapshot: ByteString

    @Argument(help: "The file, which must not exist.", completion: .file())
    var file: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true) { $0.writable.append(FileDescriptor.split(file).directory) }
        let snapshots = SnapshotStore(store.images)
        let size = try withSnapshotHints {
            let found = try snapshots.open(snapshot)
            try snapshots.restore(found, to: file)
            return found.descriptor.size
        }
        try SizedFile(path: file, size: size).show(asJSON: json)
    }
}

struct ExportSnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { RestoreSnapshot.rights }

    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a snapshot to a directory, as microsandbox has it; print the path of the disk's file and its size.",
        discussion: """
            The directory must be missing or empty. It gets snapshot.json and the disk's file, upper.ext4.

            Example: cfsoci snapshot export ready ready.snapshot
            """)

    @Argument(help: "The snapshot.", completion: .snapshotName)
    var snapshot: ByteString

    @Argument(help: "The directory.", completion: .directory)
    var directory: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true) { $0.writable.append(FileDescriptor.split(directory).directory) }
        let snapshots = SnapshotStore(store.images)
        let file = try withSnapshotHints {
            let found = try snapshots.open(snapshot)
            try snapshots.export(found, to: directory)
            return SizedFile(path: directory + "/" + ByteString(found.descriptor.file), size: found.descriptor.size)
        }
        try file.show(asJSON: json)
    }
}

struct ImportSnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .writing(reads: "directory of the snapshot") }

    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Store a snapshot from a directory of microsandbox under a name; print its identity.",
        discussion: """
            The directory has snapshot.json of microsandbox 0.6.7 to 0.6.18 and the disk's file. The identity stays. A recorded digest is compared with \
            the file. Import a parent first: it is then kept as long as its children are.

            Example: cfsoci snapshot import ready.snapshot imported
            """)

    @Argument(help: "The directory.", completion: .directory)
    var directory: ByteString

    @Argument(help: "The name. By default, that of the directory.")
    var name: ByteString?

    @Flag(name: .shortAndLong, help: "Let the name leave the snapshot that has it.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights) { $0.readable.append(directory) }
        let made = try withSnapshotHints {
            MadeSnapshot(
                report: try SnapshotStore(store.images).importSnapshot(
                    directory, as: name ?? FileDescriptor.split(directory).name, replaces: force))
        }
        made.warn(global)
        if made.report.snapshot.imageStream == nil {
            global.warn("the image \(made.report.snapshot.descriptor.imageManifest) is not in the repository; pull it to use the snapshot")
        }
        try made.show(asJSON: json)
    }
}

struct RemoveSnapshot: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .writing() }

    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove names of snapshots. The next gc removes what only they kept.",
        discussion: """
            A snapshot that is the parent of another one stays as long as that one is there.

            Example: cfsoci snapshot rm tested
            """, aliases: ["remove"])

    @Argument(help: "The names.", completion: .snapshotName)
    var names: [ByteString]

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights)
        let snapshots = SnapshotStore(store.images)
        try withSnapshotHints {
            // An unknown name is reported before anything is removed.
            for name in names where try !snapshots.isRemovable(name) { throw SnapshotError.notFound(name) }
            for name in Set(names).sorted() { try snapshots.remove(name) }
        }
        try RemovedSnapshots(names: names).show(asJSON: json)
    }
}

private struct RemovedSnapshots: CommandReport {
    var names: [ByteString]

    var lines: [String] { names.map { "Removed snapshot \(Output.printable($0))" } }

    var json: JSONValue { ["removed": .array(names.map { .string($0.jsonText) })] }
}
