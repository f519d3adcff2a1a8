import ComposefsBootFormats
public import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem

/// What runs, what is booted next, and what a rollback would boot.
public struct BootStatus: Sendable {
    /// The newest first.
    public var deployments: [Deployment]
    /// In the order of boot loaders.
    public var entries: [BootEntry]
    /// The deployment that the running kernel's arguments name; nil if the machine runs from something else.
    public var booted: ObjectID?
    /// The entry that is booted next, of whatever system.
    public var next: BootEntry?
    /// What a rollback makes the next one.
    public var previous: BootEntry?

    /// The deployment that an entry boots.
    public func deployment(of entry: BootEntry) -> Deployment? { deployments.first { entry.images.contains($0.id) } }

    /// The entries of a deployment.
    public func entries(of id: ObjectID) -> [BootEntry] { entries.filter { $0.images.contains(id) } }
}

extension Deployments {
    /// The state of the deployments and of their entries.
    public func status(_ partition: BootPartition) throws -> BootStatus {
        let (entries, all, booted) = (try partition.entries(), try all(), try booted()?.id)
        var status = BootStatus(deployments: all, entries: entries, booted: booted)
        status.next = try partition.defaultEntry(of: entries)
        let next = status.next.flatMap { status.deployment(of: $0) }?.id
        if let booted, booted != next {
            // What was prepared has not been booted: what runs is what was before.
            status.previous = status.entries(of: booted).first
        } else {
            // The next in the order, from the default on, and then from the beginning.
            let at = status.next.flatMap { entry in entries.firstIndex { $0.path == entry.path } }
            let ordered = at.map { Array(entries[($0 + 1)...] + entries[..<$0]) } ?? entries
            status.previous = ordered.first { entry in status.deployment(of: entry).map { $0.id != next } ?? false }
        }
        return status
    }

    /// Makes the entry of another deployment the default of `loader.conf`: one that is named, else the previous one.
    ///
    /// - Returns: the entry that is booted next.
    /// - Throws: `BootError.nothingBefore`, `.noEntry`, `.noDeployment`, `.severalDeployments`.
    @discardableResult
    public func rollBack(_ partition: BootPartition, to text: ByteString? = nil) throws -> BootEntry {
        try partition.withLock {
            let status = try status(partition)
            let target: BootEntry
            if let text {
                let deployment = try find(text, status.entries)
                let named = status.entries.first { ($0.id == text || $0.name.name == text) && $0.images.contains(deployment.id) }
                guard let entry = named ?? status.entries(of: deployment.id).first else { throw BootError.noEntry(deployment.id) }
                target = entry
            } else {
                guard let previous = status.previous else { throw BootError.nothingBefore }
                target = previous
            }
            // Without a line the order decides, and failed attempts count.
            try partition.setDefault(nil)
            if try partition.defaultEntry(of: status.entries)?.path != target.path { try partition.setDefault(target.id) }
            return target
        }
    }
}

/// What a removal has removed.
public struct BootRemoval: Sendable, Equatable {
    /// Entries, by the names that boot loaders show.
    public var entries: [ByteString] = []
    /// Kernels and initial RAM disks that no entry needs any more, and unfinished files, relative to the boot partition.
    public var files: [ByteString] = []
    /// In bytes.
    public var bytes: UInt64 = 0
    public var deployments: [ObjectID] = []
    /// Directories that interrupted preparations have left.
    public var temporaries = 0
}

extension Deployments {
    /// Removes a deployment with its entries, its local `/etc` and what only its entries needed. Its image is no longer kept for it.
    ///
    /// - Parameters:
    ///   - subdirectory: the directory of the boot partition for kernels, as it was prepared.
    ///   - force: removes a pinned deployment, the last one with an entry, and one with data in its own `/var`. What runs is never removed.
    /// - Throws: `BootError.deploymentIsBooted`, `.deploymentIsPinned`, `.deploymentIsLast`, `.deploymentHasData`,
    ///   `.deploymentHasMount`.
    public func remove(
        _ text: ByteString, _ partition: BootPartition, subdirectory: ByteString = "composefs", force: Bool = false
    ) throws -> BootRemoval {
        try partition.withLock {
            try withLock {
                let status = try status(partition)
                let deployment = try find(text, status.entries)
                guard !running.contains(deployment.id) else { throw BootError.deploymentIsBooted(deployment.id) }
                // A file system that is mounted below it is not the deployment's, and would be emptied with it.
                if let mount = try root.mountPoint(atOrBelow: Self.directory(deployment.id)) {
                    throw BootError.deploymentHasMount(deployment.id, sysroot + "/" + mount)
                }
                let system = try knownSystem()
                // Another system may boot the same image. A unified kernel image with a given name has no mark.
                let own = status.entries(of: deployment.id).filter { entry in
                    entry.system.map { $0 == system } ?? (entry.kind == .unified)
                }
                if !force {
                    guard !deployment.isPinned else { throw BootError.deploymentIsPinned(deployment.id) }
                    let hasOther = status.entries.contains { entry in
                        status.deployment(of: entry).map { $0.id != deployment.id } ?? false
                    }
                    guard own.isEmpty || hasOther else { throw BootError.deploymentIsLast(deployment.id) }
                    if deployment.hasOwnVar, try root.entries(of: Self.directory(deployment.id) + "/var")?.isEmpty == false {
                        throw BootError.deploymentHasData(deployment.id)
                    }
                }
                var removal = BootRemoval()
                // The entries first: none may be left without what it needs.
                try remove(own, partition, &removal)
                try removeUnusedFiles(partition, subdirectory, &removal)
                let temporary = Self.deploy + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
                try root.rename(at: Self.directory(deployment.id), to: temporary)
                try root.open(at: Self.deploy, [.readOnly, .directory]).sync()
                try root.removeTree(at: temporary)
                removal.deployments.append(deployment.id)
                return removal
            }
        }
    }

    /// Removes entries that this system wrote and whose deployment is gone, files that no entry needs, and what interrupted preparations
    /// and removals have left. Entries of other systems, and deployments, stay.
    public func collectGarbage(
        _ partition: BootPartition, subdirectory: ByteString = "composefs", dryRun: Bool = false
    ) throws -> BootRemoval {
        try partition.withLock {
            try withLock {
                let (entries, deployed) = (try partition.entries(), Set(try all().map(\.id)).union(running))
                var removal = BootRemoval()
                let system = try knownSystem()
                var orphans = entries.filter { entry in
                    system != nil && entry.system == system && !entry.images.isEmpty && entry.images.allSatisfy { !deployed.contains($0) }
                }
                // One entry stays in any case: a machine without any does not boot.
                if orphans.count == entries.count { orphans = [] }
                try remove(orphans, partition, &removal, dryRun)
                try removeUnusedFiles(partition, subdirectory, &removal, dryRun ? orphans : nil)
                if !dryRun { removal.temporaries = try removeTemporaries() }
                return removal
            }
        }
    }

    private func remove(
        _ entries: [BootEntry], _ partition: BootPartition, _ removal: inout BootRemoval, _ dryRun: Bool = false
    ) throws {
        guard !entries.isEmpty else { return }
        // A default that names no entry would be replaced by the first in any case; this keeps the file clean.
        if !dryRun, let pattern = try partition.configuration()["default"], entries.contains(where: { $0.id == pattern }) {
            try partition.setDefault(nil)
        }
        for entry in entries {
            if !dryRun { try partition.remove(entry) }
            removal.entries.append(entry.id)
        }
    }

    /// - Parameter orphans: in a dry run, the entries that would be removed; nil removes the files.
    private func removeUnusedFiles(
        _ partition: BootPartition, _ subdirectory: ByteString, _ removal: inout BootRemoval, _ orphans: [BootEntry]? = nil
    ) throws {
        for file in try partition.unusedFiles(in: [BootPartition.relative(subdirectory)], without: Set((orphans ?? []).map(\.path))) {
            if orphans == nil { try partition.remove(file.path) }
            removal.files.append(file.path)
            removal.bytes = removal.bytes.saturatingAdd(file.size)
        }
    }
}
