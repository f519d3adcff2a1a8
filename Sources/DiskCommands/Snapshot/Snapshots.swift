public import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI

/// `cfsoci snapshot`.
public struct Snapshots: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Keep snapshots of the writable disks of virtual machines in the repository.",
        discussion: """
            A snapshot is the content of a disk and a descriptor, snapshot.json as microsandbox has it. The content is cut into objects of 64 \
            KiB, so a snapshot costs what differs from other snapshots, and holes cost nothing. gc keeps a snapshot, its parents and its image \
            as long as it has a name.

            SNAPSHOT is a name, or an identity: sha256:…, the digest of the descriptor.

              cfsoci snapshot create ready --upper state.ext4 --image alpine
              cfsoci snapshot create tested --upper state.ext4 --parent ready
              cfsoci snapshot restore ready again.ext4
            """,
        subcommands: [
            CreateSnapshot.self, ListSnapshots.self, InspectSnapshot.self, VerifySnapshot.self, RestoreSnapshot.self, ExportSnapshot.self,
            ImportSnapshot.self, RemoveSnapshot.self,
        ])

    public init() {}
}

extension CompletionKind {
    /// The names of the repository's snapshots.
    static var snapshotName: CompletionKind {
        .custom { words, _, _ in
            let names = (try? Completion.images(words)?.repository.streamReferences(under: "snapshots")) ?? []
            return names.compactMap(\.name.utf8Text)
        }
    }
}

extension SnapshotError {
    var code: ErrorCode {
        switch self {
        case .notFound: .noSuchImage
        case .inUse, .changed: .busy
        case .noSpace: .noSpace
        case .damaged, .fileIntegrity: .damaged
        default: .failed
        }
    }

    /// What to do about the error, in terms of the commands.
    var hint: String {
        switch self {
        case .notFound: "; `cfsoci snapshot list` lists the names"
        case .exists: "; choose another name, or replace it with --force"
        case .inUse: "; stop the virtual machine first"
        case .changed: "; stop the virtual machine, and unmount the disk, first"
        case .unknownFilesystem(_, looksLikeQcow2: true): "; --format qcow2 stores it as such"
        case .unknownFilesystem: "; name its file system with --filesystem"
        case .noSpace: "; free some space or run `cfsoci gc`, then repeat the command"
        case .noImage: "; name one with --image or --parent"
        case .qcow2: "; `qemu-img convert -O qcow2` makes a complete file"
        case .damaged: "; `cfsoci fsck` has details"
        default: ""
        }
    }
}

/// Adds to errors of snapshots what helps.
func withSnapshotHints<Result>(_ body: () throws -> Result) throws -> Result {
    do {
        return try withDiskHints(body)
    } catch let error as SnapshotError {
        throw CommandError(error.description + error.hint, code: error.code)
    }
}

/// What a command has stored.
struct MadeSnapshot: CommandReport {
    var report: SnapshotReport

    var lines: [String] { ["\(report.snapshot.identity)"] }

    var json: JSONValue {
        [
            "name": .string(report.name.jsonText), "identity": .string("\(report.snapshot.identity)"),
            "size": JSONValue(report.snapshot.descriptor.size), "newObjects": .count(report.newObjects),
            "newBytes": JSONValue(report.newBytes),
            "needsRecovery": .bool(report.needsRecovery), "imageStored": .bool(report.snapshot.imageStream != nil),
        ]
    }

    /// Says what the result does not: that the file system is not clean.
    func warn(_ global: GlobalOptions) {
        guard report.needsRecovery else { return }
        global.warn(
            "the file system was not unmounted; its journal is part of the snapshot, and the machine that mounts a restored disk applies it, "
                + "as after a power cut")
    }
}
