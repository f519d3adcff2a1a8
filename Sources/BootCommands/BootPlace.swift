import ArgumentParser
import ComposefsCommandSupport
import ComposefsConfinement
import ComposefsLinuxSystem
import ComposefsOCI

/// Where a system's boot partition and state are.
struct BootPlace: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The boot partition, mounted; by default /boot, /efi, /boot/efi or `boot` beside the repository, whichever has entries.",
            valueName: "dir"), completion: .directory)
    var boot: ByteString?

    @OptionGroup var sysroot: SysrootOption

    /// Opens the repository, the boot partition and the deployments.
    func open(
        _ global: GlobalOptions, _ rights: CommandRights, writes: Bool
    ) throws -> (store: Store, partition: BootPartition, deployments: Deployments) {
        let global = try sysroot.applied(to: global)
        let above = try global.repositoryPath() + "/.."
        let places = boot.map { [$0] } ?? BootPartition.candidates(above)
        let store = try global.openStore(rights, readOnly: !writes) { confinement in
            try SysrootOption.allowState(of: global, writes: writes, &confinement)
            if writes { confinement.writable += places } else { confinement.readable += places }
        }
        let deployments = try Deployments(beside: store.repository, sysroot: self.sysroot.sysroot)
        let partition = try boot.map { try BootPartition($0) } ?? BootPartition.find(deployments.sysroot)
        return (store, partition, deployments)
    }
}

/// The directory that holds repository and state.
struct SysrootOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The directory that holds the repository `composefs` and `state`; by default the one that holds the repository.",
            valueName: "dir"), completion: .directory)
    var sysroot: ByteString?

    /// The repository is in the directory, unless the options name one.
    func applied(to global: GlobalOptions) throws -> GlobalOptions {
        var global = global
        if let sysroot, global.repo == nil, !global.user, !global.system { global.repo = sysroot + "/composefs" }
        return global
    }

    /// Lets a confined command read or write `state` beside the repository.
    static func allowState(of global: GlobalOptions, writes: Bool, _ confinement: inout Confinement) throws {
        let state = try global.repositoryPath() + "/../state"
        guard writes else { return confinement.readable.append(state) }
        // A rule is for a directory that exists.
        try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: state, mode: 0o755)
        confinement.writable.append(state)
    }
}

extension CommandRights {
    /// Owners, modes, device nodes (whiteouts) and attributes of files in `/etc` and `/var` are written as they are in the image or were before.
    static let preparing: CommandRights = {
        var rights = writing(reads: bootReads, writes: bootWrites)
        rights.capabilities?.formUnion([.changeOwner, .keepSetID, .makeNode, .setFileCapability, .systemAdmin])
        return rights
    }()
    static let changingBoot = writing(reads: bootReads, writes: bootWrites)
    static let readingBoot = reading(reads: bootReads)

    private static let bootReads = "boot partition, `state`"
    private static let bootWrites = "boot partition, `state`"
}
