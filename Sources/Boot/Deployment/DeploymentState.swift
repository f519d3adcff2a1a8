public import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
public import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// What happened to `/etc` when an image was prepared.
public enum EtcOutcome: Sendable, Equatable {
    /// The deployment was there already, with its own local changes.
    case unchanged
    /// It starts as in the image.
    case new
    /// The local changes of another deployment were carried over: paths in `/etc` that are as the user left them, those that the user removed,
    /// and of both those that the new image changed too.
    case merged(from: ObjectID, kept: [ByteString], removed: [ByteString], conflicts: [ByteString])
}

/// Which `/var` a deployment has.
public enum VarOutcome: Sendable, Equatable {
    /// The one that all deployments share.
    case shared
    /// The same. It was that of another deployment alone, which another program made, and that deployment shares it now.
    case adopted(from: ObjectID)
    /// One of its own.
    case own
    /// The shared one. The deployment before it has one of its own, whose data stay there.
    case sharedBesideOwn(of: ObjectID)
}

extension Deployments {
    private static let upper: ByteString = "/etc/upper"
    private static let work: ByteString = "/etc/work"

    /// Makes the directory of a deployment, or completes one that was never booted. One that was booted stays as it is: it has the user's changes.
    ///
    /// - Parameters:
    ///   - tree: the tree of the image for booting.
    ///   - previous: the deployment that the new one follows.
    ///   - mergesEtc: whether its local changes to `/etc` are carried over.
    func makeState(
        _ id: ObjectID, _ tree: FileTree, _ record: DeploymentRecord, after previous: Deployment?, mergesEtc: Bool, ownVar: Bool,
        _ images: ImageStore
    ) throws -> (etc: EtcOutcome, var: VarOutcome) {
        let found = try deployment(id)
        let before = previous?.id == id ? nil : previous
        let outcome: VarOutcome
        if found?.hasOwnVar ?? ownVar {
            outcome = .own
        } else {
            outcome = try adoptVar(of: before)
            try makeSharedVar(tree, images.repository)
        }
        return (try makeState(id, tree, record, exists: found != nil, etcFrom: mergesEtc ? before : nil, ownVar: ownVar, images), outcome)
    }

    /// An update must not hide the user's data: if there is no shared `/var` yet, and the deployment before has one that another program made
    /// for it alone, that one becomes the shared one. Both names change places at once.
    private func adoptVar(of previous: Deployment?) throws -> VarOutcome {
        guard let previous, previous.hasOwnVar else { return .shared }
        let kind = try root.statusIfPresent(at: Self.sharedVar)?.kind
        guard previous.record == nil, kind == nil || kind == .symbolicLink else { return .sharedBesideOwn(of: previous.id) }
        let (parent, _) = FileDescriptor.split(Self.sharedVar)
        try makeDirectories(parent)
        // A link there is left from an attempt that was interrupted.
        if kind != nil { try root.unlink(at: Self.sharedVar) }
        try root.symlink(target: Self.linkToVar, at: Self.sharedVar)
        do {
            try root.rename(at: Self.directory(previous.id) + "/var", to: Self.sharedVar, flags: .exchange)
        } catch {
            try? root.unlink(at: Self.sharedVar)
            throw error
        }
        try root.open(at: parent, [.readOnly, .directory]).sync()
        try root.open(at: Self.directory(previous.id), [.readOnly, .directory]).sync()
        return .adopted(from: previous.id)
    }

    /// From a deployment's directory to the shared `/var`.
    private static let linkToVar: ByteString = "../../os/default/var"

    private func makeState(
        _ id: ObjectID, _ tree: FileTree, _ record: DeploymentRecord, exists: Bool, etcFrom source: Deployment?, ownVar: Bool,
        _ images: ImageStore
    ) throws -> EtcOutcome {
        let directory = Self.directory(id)
        guard try !exists || isNeverBooted(id) else {
            try write(record.bytes, at: directory + "/" + Self.record)
            return .unchanged
        }
        let temporary = Self.deploy + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
        let outcome: EtcOutcome
        do {
            try root.makeDirectory(at: temporary, mode: 0o755)
            for name in ["/etc", "/etc/upper", "/etc/work"] as [ByteString] {
                try root.makeDirectory(at: temporary + name, mode: name == "/etc/work" ? 0o700 : 0o755)
            }
            outcome = try writeEtc(tree, to: temporary + Self.upper, from: source, images)
            if ownVar {
                try root.makeDirectory(at: temporary + "/var", mode: 0o755)
                try writeVar(tree, to: temporary + "/var", images.repository)
            } else {
                try root.symlink(target: Self.linkToVar, at: temporary + "/var")
            }
            let file = try root.open(at: temporary + "/" + Self.record, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o644)
            try file.writeAll(record.bytes)
            // All of it is durable before the deployment has its name.
            try root.open(at: Self.deploy, [.readOnly, .directory]).syncFileSystem()
            if exists {
                // Only /etc is new: what else there is may be the user's.
                try root.rename(at: temporary + "/etc", to: directory + "/etc", flags: .exchange)
                try write(record.bytes, at: directory + "/" + Self.record)
                try root.open(at: directory, [.readOnly, .directory]).sync()
                try root.removeTree(at: temporary)
            } else {
                try root.rename(at: temporary, to: directory, flags: .noReplace)
            }
            try root.open(at: Self.deploy, [.readOnly, .directory]).sync()
        } catch {
            try? root.removeTree(at: temporary)
            throw error
        }
        return outcome
    }

    /// Whether the overlay for `/etc` was never mounted: the kernel makes a directory in its working directory, which stays.
    private func isNeverBooted(_ id: ObjectID) throws -> Bool {
        guard !running.contains(id) else { return false }
        let directory = Self.directory(id)
        guard try root.statusIfPresent(at: directory + Self.upper)?.kind == .directory,
            let work = try root.entries(of: directory + Self.work)
        else { return false }
        return work.isEmpty
    }

    /// The `/var` that deployments share starts with what the first image has there.
    private func makeSharedVar(_ tree: FileTree, _ repository: Repository) throws {
        guard try root.statusIfPresent(at: Self.sharedVar) == nil else { return }
        let (parent, _) = FileDescriptor.split(Self.sharedVar)
        try makeDirectories(parent)
        let temporary = Self.deploy + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
        do {
            try root.makeDirectory(at: temporary, mode: 0o755)
            try writeVar(tree, to: temporary, repository)
            try root.open(at: parent, [.readOnly, .directory]).syncFileSystem()
            try root.rename(at: temporary, to: Self.sharedVar, flags: .noReplace)
            try root.open(at: parent, [.readOnly, .directory]).sync()
        } catch {
            try? root.removeTree(at: temporary)
            throw error
        }
    }

    private func writeVar(_ tree: FileTree, to path: ByteString, _ repository: Repository) throws {
        guard let directory = tree.lookup("var", in: FileTree.root), tree.isDirectory(directory) else { return }
        try TreeWriter(repository).write(tree, directory, to: try root.open(at: path, [.readOnly, .directory]))
    }

    private func writeEtc(_ tree: FileTree, to path: ByteString, from source: Deployment?, _ images: ImageStore) throws -> EtcOutcome {
        let new = Self.etc(of: tree)
        let target = try root.open(at: path, [.readOnly, .directory])
        var writer = TreeWriter(images.repository)
        guard let source else {
            // An upper directory without entries has the metadata of the directory that it covers.
            let merged = try EtcMerge.merge(
                old: new, new: new, upper: FileTree(root: new.map { $0.tree.metadata(of: $0.root) } ?? Metadata(permissions: 0o755)))
            try writer.write(merged.tree, to: target)
            return .new
        }
        let before: FileTree
        do {
            before = try images.erofsImage(source.id).tree()
        } catch {
            throw BootError.etcUnknown(source.id, cause: error)
        }
        let directory = Self.directory(source.id)
        // bootc keeps a whole copy.
        let isComplete =
            try root.statusIfPresent(at: directory + Self.upper)?.kind != .directory
            || root.statusIfPresent(at: directory + Self.work)?.kind != .directory
        let place = directory + (isComplete ? "/etc" : Self.upper)
        guard try root.statusIfPresent(at: place)?.kind == .directory else { throw BootError.etcDamaged(sysroot + "/" + place) }
        let local = try hashDirectory(sysroot + "/" + place, images.repository.algorithm)
        writer.addContents(of: local, at: sysroot + "/" + place)
        let merged = try EtcMerge.merge(old: Self.etc(of: before), new: new, upper: local, isComplete: isComplete)
        try writer.write(merged.tree, to: target)
        return .merged(from: source.id, kept: merged.kept, removed: merged.removed, conflicts: merged.conflicts)
    }

    private static func etc(of tree: FileTree) -> EtcMerge.Side? {
        guard let directory = tree.lookup("etc", in: FileTree.root), tree.isDirectory(directory) else { return nil }
        return EtcMerge.Side(tree: tree, root: directory)
    }
}
