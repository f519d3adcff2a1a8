// DiskCommands: the subcommands of `cfsoci disk`, one file for each.
public import ArgumentParser
import ComposefsBytes
package import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

/// `cfsoci disk`.
public struct Disk: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "disk", abstract: "Make disks for virtual machines from an image, and their writable disks.",
        discussion: """
            `disk IMAGE` is short for `disk create IMAGE`. Write `disk create upper` for an image with the name of a subcommand.

              cfsoci disk alpine --kind vmdk -o alpine.disk
              cfsoci disk upper state.ext4 --size 4G
              qemu-system-x86_64 … -drive file=alpine.disk/disk.vmdk,format=vmdk,if=virtio,readonly=on \
            -drive file=state.ext4,format=raw,if=virtio
            """,
        subcommands: [CreateDisk.self, ListDisks.self, RemoveDisk.self, UpperDisk.self, GrowDisk.self], defaultSubcommand: CreateDisk.self)

    public init() {}
}

extension CommandRights {
    /// `disk create --output`: the repository is only read.
    package static let writingDisks = CommandRights(
        .reads, writes: "directory of the output", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
}

/// The file and size that a command has made.
struct SizedFile: CommandReport {
    var path: ByteString
    var size: UInt64

    var lines: [String] { ["\(Output.printable(path))  \(size)"] }

    var json: JSONValue { ["path": .string(path.jsonText), "size": .integer(Int64(clamping: size))] }
}

extension DiskError {
    var code: ErrorCode {
        switch self {
        case .busy: .busy
        case .noSpace: .noSpace
        case .keptDisk(_, .exceptions): .failed
        case .objectSize, .keptDisk: .damaged
        default: .failed
        }
    }

    /// What to do about the error, in terms of the commands.
    var hint: String {
        switch self {
        case .notRegularFile, .exists: "; remove it, or choose another name"
        case .notEmptyDirectory: "; remove it, or choose another name with --output"
        case .invalidPath: "; name one with --output"
        case .busy: "; wait until it has ended"
        case .noSpace: "; free some space, or run `cfsoci gc` if it is the repository's, then repeat the command"
        case .keptDisk(_, .exceptions): "; make it with --output"
        case .objectSize, .keptDisk: "; `cfsoci fsck` lists the affected images and what to do"
        case .layersHaveOwnTrees, .sizeNotApplicable: ""
        }
    }
}

/// Adds to errors of disks what helps.
func withDiskHints<Result>(_ body: () throws -> Result) throws -> Result {
    do {
        return try body()
    } catch let error as DiskError {
        throw CommandError(error.description + error.hint, code: error.code)
    } catch let error as ErofsError {
        switch error {
        // Nothing is damaged: the format has limits.
        case .unwritable, .diskTooLarge: throw CommandError(error.description)
        default: throw error
        }
    }
}
