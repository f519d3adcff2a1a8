import ArgumentParser
import ComposefsCommandSupport
import ComposefsDiskCommands
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsToolCommands

// What each command keeps while it parses bytes of others. README.md has the same table; a test compares them.

extension CommandRights {
    /// Kernel mounts. The kernel keeps the credentials of the process that mounts an overlay, and acts with them as long as it is mounted: what
    /// were given up here would be missing there. Without CAP_SYS_ADMIN nothing is given up: fusermount3 needs its set-user-ID bit.
    static let mounting = CommandRights(
        .reads, programs: "itself, to serve with FUSE; mounts", limitsPaths: false, mounts: true,
        capabilities: nil)

    /// FUSE, with CAP_SYS_ADMIN; without it nothing is given up, as above. Unmounting at the end excludes Landlock.
    static let serving = CommandRights(
        .writes, programs: "`fusermount3` in user namespaces; mounts", limitsPaths: false, mounts: true,
        capabilities: [.dacOverride, .dacReadSearch, .fileOwner, .systemAdmin])

    static let copying = writing(reads: "repository of `--from`", writes: "files of `--from`, for hard links")
    /// The repository too: it keeps how a layer was packed.
    static let exporting = writing(writes: "destination")
    /// Between registries, layouts and archives, without a repository.
    static let copyingIndexes = CommandRights(
        .none, reads: "source, registries' files", writes: "destination, directory of temporary files", network: "registries",
        programs: "credential helpers, if one is configured", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
    static let sending = writing(
        reads: "registries' files", network: "registries", programs: "credential helpers, if one is configured")
    static let repairing = writing(
        reads: "sources, registries' files", network: "registries", programs: "credential helpers, if one is configured")

    func with(_ change: (inout CommandRights) -> Void) -> CommandRights {
        var rights = self
        change(&rights)
        return rights
    }
}

// MARK: Images

extension Pull: ConfinedCommand {
    static var rights: CommandRights? { pulling }
    static let pulling = CommandRights.writing(
        reads: "source, registries' files", writes: "chosen short names", network: "registries, until all is downloaded",
        programs: "credential helpers, if one is configured, until all is downloaded")
}
extension Push: ConfinedCommand { static var rights: CommandRights? { .sending } }
extension Export: ConfinedCommand { static var rights: CommandRights? { .exporting } }
extension Copy: ConfinedCommand { static var rights: CommandRights? { .copying } }
extension Images: ConfinedCommand { static var rights: CommandRights? { .watching(.reads) } }
extension Inspect: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension History: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension Difference: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension Tag: ConfinedCommand { static var rights: CommandRights? { .writing() } }
extension Seal: ConfinedCommand { static var rights: CommandRights? { .writing() } }
extension Untag: ConfinedCommand { static var rights: CommandRights? { .watching(.writes) } }
extension Remove: ConfinedCommand { static var rights: CommandRights? { .watching(.writes) } }
extension Referrers.ListReferrers: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension Referrers.AddReferrer: ConfinedCommand { static var rights: CommandRights? { .writing(reads: "files of `--file`") } }
extension Referrers.RemoveReferrer: ConfinedCommand { static var rights: CommandRights? { .writing() } }

// MARK: Registries

extension Login: ConfinedCommand {
    static var rights: CommandRights? { loggingIn }
    static let loggingIn = CommandRights(
        .none, reads: "registries' files", writes: "directory of the auth file", network: "registries",
        programs: "credential helpers, if one is configured", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
}
/// Changes the user's own file, or calls a credential helper.
extension Logout: ConfinedCommand { static var rights: CommandRights? { nil } }

// MARK: Image content

extension List: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension Cat: ConfinedCommand { static var rights: CommandRights? { .reading() } }

// MARK: Mounting

extension Mount: ConfinedCommand { static var rights: CommandRights? { .mounting } }
extension Mount {
    /// Without arguments.
    static let listing = CommandRights.watching(.reads)
}
/// Parses the kernel's table of mounts only.
extension Unmount: ConfinedCommand { static var rights: CommandRights? { nil } }

// MARK: The store

/// Parses nothing but an existing `meta.json`.
extension Initialize: ConfinedCommand { static var rights: CommandRights? { nil } }
extension Info: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension DiskUsage: ConfinedCommand { static var rights: CommandRights? { .watching(.reads) } }
extension Fsck: ConfinedCommand { static var rights: CommandRights? { .reading() } }
extension GarbageCollect: ConfinedCommand { static var rights: CommandRights? { .watching(.writes) } }
extension Prune: ConfinedCommand { static var rights: CommandRights? { .watching(.writes) } }
extension Upgrade: ConfinedCommand { static var rights: CommandRights? { .writing() } }
extension Metrics: ConfinedCommand { static var rights: CommandRights? { .watching(.reads) } }
extension ShowVersion: ConfinedCommand { static var rights: CommandRights? { nil } }
/// Tries the kernel with files of its own.
extension Features: ConfinedCommand { static var rights: CommandRights? { nil } }

/// The table of README.md.
enum ConfinementTable {
    static let titles = ["command", "capabilities", "Landlock", "reads", "writes", "sockets", "programs"]

    /// Rows of one table, without those that other commands share: the names of commands with the same rights are in one row.
    static var markdown: [String] {
        var rows: [(names: [String], cells: [String])] = []
        func add(_ name: String, _ cells: [String]) {
            if let row = rows.firstIndex(where: { $0.cells == cells }) {
                rows[row].names.append(name)
            } else {
                rows.append(([name], cells))
            }
        }
        for (name, rights) in commands { if let rights { add(name, rights.cells) } }
        add("copy --all", CommandRights.copyingIndexes.cells)
        add("disk create --output", CommandRights.writingDisks.cells)
        add("fsck --repair", CommandRights.repairing.cells)
        add("mount (without arguments)", Mount.listing.cells)
        add("mount.composefs", CommandRights.mounting.cells)
        add("mount --fuse", CommandRights.serving.cells)
        for tool in ComposefsTools.rights { add(tool.name, tool.rights.cells) }
        let unconfined = commands.filter { $0.rights == nil }.map(\.name)
        rows.append((unconfined, ["all", "no"] + Array(repeating: "not confined", count: titles.count - 3)))
        // One line after the other: as one expression it takes the compiler too long.
        var lines = [line(of: titles), "|" + String(repeating: " --- |", count: titles.count)]
        for row in rows {
            let names = row.names.map { "`\($0)`" }.joined(separator: ", ")
            lines.append(line(of: [names] + row.cells))
        }
        return lines
    }

    private static func line(of cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }

    /// Every command that does something, by its names from the first on.
    static var commands: [(name: String, rights: CommandRights?)] {
        all.map { ($0.name, ($0.type as? any ConfinedCommand.Type)?.rights ?? nil) }
    }

    static var all: [(name: String, type: any ParsableCommand.Type)] {
        Cfsoci.configuration.groupedSubcommands.flatMap(\.subcommands).flatMap { leaves($0, "") }
    }

    private static func leaves(_ type: any ParsableCommand.Type, _ prefix: String) -> [(name: String, type: any ParsableCommand.Type)] {
        let name = prefix + (type.configuration.commandName ?? type._commandName)
        let below = type.configuration.subcommands
        return below.isEmpty ? [(name, type)] : below.flatMap { leaves($0, name + " ") }
    }
}

extension Fsck {
    /// Confines a repair: to the repository, and to the sources that it may fetch from.
    func confineRepair(_ store: Store, _ path: ByteString, _ registry: RegistryOptions) throws {
        let references = from == nil ? try Self.recordedSources(store) : []
        let isDirectory = try from.map(Self.isDirectory) ?? false
        try global.confine(.repairing, repository: path) { confinement in
            if let from, isDirectory {
                // A layout or another repository, from which objects may get a second name here.
                confinement.readable.append(from)
                confinement.linkable.append(from + "/objects")
                return
            }
            for reference in from.map({ [$0] }) ?? references {
                guard let text = reference.utf8Text, let parsed = try? parseReference(text) else { continue }
                do {
                    try confinement.addSource(parsed, registry)
                } catch {
                    // What a source needs that is not there any more is told when it is asked. Another fault would seem to be one of rights
                    // then: the confinement would not let it be read.
                    if let fault = error as? SystemError, !fault.isMissing { throw fault }
                }
            }
            // A tag may be a reference to a registry.
            if from == nil { confinement.addRegistry(registry) }
        }
    }

    private static func isDirectory(_ path: ByteString) throws(SystemError) -> Bool {
        do throws(SystemError) {
            _ = try FileDescriptor.open(path, [.pathOnly, .directory])
            return true
        } catch {
            // A path that is too long is a reference.
            guard error.isMissing || error.errno == .nameTooLong else { throw error }
            return false
        }
    }

    /// A store whose links are damaged has no sources; a device that cannot be read is an error.
    private static func recordedSources(_ store: Store) throws -> [ByteString] {
        do {
            return try store.images.recordedSources()
        } catch RepositoryError.system(let fault) where !fault.isMissing && fault.errno != .tooManySymbolicLinks {
            throw RepositoryError.system(fault)
        } catch {
            return []
        }
    }
}
