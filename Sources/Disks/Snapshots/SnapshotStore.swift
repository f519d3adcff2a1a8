public import ComposefsBytes
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
public import ComposefsSnapshotFormat
import ComposefsSplitStream

/// What a new snapshot is made of.
public struct NewSnapshot: Sendable {
    /// The image whose files the disk changes, and a name for it; nil for those of the parent.
    public var image: StoredImage?
    public var imageReference: String?
    public var parent: StoredSnapshot?
    public var format: SnapshotDescriptor.DiskFormat = .raw
    /// The file system on the disk. Nil for ext4, which a raw disk must then have.
    public var filesystem: String?
    /// The virtual machine that the disk belongs to.
    public var sourceSandbox: String?
    public var labels: [SnapshotDescriptor.Label] = []
    /// RFC 3339; nil for now.
    public var createdAt: String?
    /// Whether the name may be that of another snapshot, which it then leaves.
    public var replaces = false

    public init() {}
}

/// A snapshot that was stored.
public struct SnapshotReport: Sendable, Hashable {
    public var snapshot: StoredSnapshot
    public var name: ByteString
    /// What the repository did not have, without the few objects of the streams.
    public var newObjects: Int
    public var newBytes: UInt64
    /// Whether the journal of the file system has changes that are not applied yet, as after a machine was switched off. They are part of the
    /// snapshot; the machine that mounts the disk applies them.
    public var needsRecovery: Bool
}

/// A name of a snapshot.
public struct NamedSnapshot: Sendable {
    public var name: ByteString
    public var snapshot: Result<StoredSnapshot, SnapshotError>
}

/// The snapshots of the writable disks of virtual machines in a store (Repo-Format.md, chapter 7.7).
public struct SnapshotStore: Sendable {
    let images: ImageStore
    var repository: Repository { images.repository }

    public init(_ images: ImageStore) { self.images = images }

    // MARK: Finding

    /// The snapshot that a name or an identity (`sha256:…`) leads to.
    ///
    /// - Throws: `SnapshotError.notFound`, `.damaged`; `RepositoryError`.
    public func open(_ text: ByteString) throws -> StoredSnapshot {
        if let identity = text.utf8Text.flatMap({ ContentDigest($0) }) { return try snapshot(identity, as: text) }
        // No other text can be a name.
        guard (try? SnapshotNames.check(text)) != nil,
            let reference = try repository.streamReference(SnapshotNames.references + "/" + text)
        else { throw SnapshotError.notFound(text) }
        guard let identity = SnapshotNames.identity(of: reference.entry) else {
            throw SnapshotError.damaged(text, .unreadable("streams/refs/\(reference.name) leads to \(reference.target)"))
        }
        return try snapshot(identity, as: text)
    }

    private func snapshot(_ identity: ContentDigest, as name: ByteString) throws -> StoredSnapshot {
        guard let stream = try repository.stream(SnapshotNames.stream(identity)) else { throw SnapshotError.notFound(name) }
        return try read(stream, identity, as: name)
    }

    private func read(_ stream: ObjectID, _ identity: ContentDigest, as name: ByteString) throws -> StoredSnapshot {
        do {
            return try repository.snapshot(stream, expected: identity)
        } catch let fault as SnapshotFault {
            throw SnapshotError.damaged(name, fault)
        } catch let error as SplitStreamError {
            throw SnapshotError.damaged(name, .unreadable("\(error)"))
        }
    }

    /// All names, in ascending order.
    ///
    /// - Throws: `RepositoryError` if the names cannot be listed.
    public func list() throws -> [NamedSnapshot] {
        try repository.streamReferences(under: SnapshotNames.references).map { reference in
            do {
                return NamedSnapshot(name: reference.name, snapshot: .success(try open(reference.name)))
            } catch let error as SnapshotError {
                return NamedSnapshot(name: reference.name, snapshot: .failure(error))
            } catch let error as RepositoryError {
                return NamedSnapshot(name: reference.name, snapshot: .failure(.damaged(reference.name, .unreadable("\(error)"))))
            }
        }
    }

    // MARK: Making and removing

    /// Stores the content of a disk and a descriptor of it, and gives them a name. The file must not belong to a virtual machine that runs.
    ///
    /// The name exists only when all content is durable. A file that changes meanwhile, or is locked by a program that changes it, is refused; nothing
    /// then refers to what was stored.
    ///
    /// - Throws: `SnapshotError`, `RepositoryError`, `SystemError`.
    public func create(_ name: ByteString, from path: ByteString, _ options: NewSnapshot) throws -> SnapshotReport {
        try SnapshotNames.check(name)
        try checkFree(name, replaces: options.replaces)
        guard let manifest = options.image?.manifestDigest ?? options.parent?.descriptor.imageManifest,
            let reference = options.imageReference ?? options.parent?.descriptor.imageReference
        else { throw SnapshotError.noImage }
        if let parent = options.parent, parent.descriptor.imageManifest != manifest {
            throw SnapshotError.otherImage(parent: parent.descriptor.imageManifest, given: manifest)
        }
        let source = try UpperSource(path)
        var needsRecovery = false
        switch options.format {
        case .qcow2: try source.checkQcow2()
        case .raw:
            let content = try source.content()
            guard content.isExt4 || options.filesystem != nil else {
                throw SnapshotError.unknownFilesystem(path, looksLikeQcow2: content.isQcow2)
            }
            needsRecovery = content.needsRecovery
        }
        let now = Host.currentTime()
        // What the schema refuses is refused before anything is read.
        func describe(_ integrity: SnapshotDescriptor.Integrity?) throws -> SnapshotDescriptor {
            do throws(SnapshotFormatError) {
                return try SnapshotDescriptor(
                    createdAt: options.createdAt ?? RFC3339.text(now.seconds, nanoseconds: now.nanoseconds),
                    parent: options.parent?.identity, imageReference: reference, imageManifest: manifest,
                    sourceSandbox: options.sourceSandbox, format: options.format, filesystem: options.filesystem ?? "ext4",
                    file: options.format == .raw ? SnapshotDescriptor.upperFileName : "upper.qcow2", size: source.size,
                    integrity: integrity, labels: options.labels)
            } catch {
                throw SnapshotError.descriptor(error)
            }
        }
        _ = try describe(nil)
        let upper = try UpperStorage.store(source, in: repository)
        let descriptor = try describe(.merkle(upper.root))
        let snapshot = try publish(descriptor, upper, as: name, parent: options.parent, image: options.image)
        return SnapshotReport(
            snapshot: snapshot, name: name, newObjects: upper.newObjects, newBytes: upper.newBytes, needsRecovery: needsRecovery)
    }

    /// Whether there is a name that can be removed, or what an interrupted removal has left of it.
    ///
    /// - Throws: `RepositoryError`.
    public func isRemovable(_ name: ByteString) throws -> Bool {
        guard (try? SnapshotNames.check(name)) != nil else { return false }
        return try [SnapshotNames.references, SnapshotNames.images].contains { try repository.streamReference($0 + "/" + name) != nil }
    }

    /// Removes a name. The snapshot stays if it is the parent of another one or has another name; otherwise the next garbage collection removes it.
    /// Also completes a removal that was interrupted.
    ///
    /// - Throws: `SnapshotError.notFound`, `RepositoryError`.
    public func remove(_ name: ByteString) throws {
        guard (try? SnapshotNames.check(name)) != nil else { throw SnapshotError.notFound(name) }
        let hadName = try repository.removeStreamReferenceSurely(SnapshotNames.references + "/" + name)
        let hadImage = try repository.removeStreamReference(SnapshotNames.images + "/" + name)
        guard hadName || hadImage else { throw SnapshotError.notFound(name) }
    }

    /// - Parameters:
    ///   - name: is valid.
    ///   - identity: of the snapshot that may have the name.
    func checkFree(_ name: ByteString, for identity: ContentDigest? = nil, replaces: Bool) throws {
        guard !replaces, let reference = try repository.streamReference(SnapshotNames.references + "/" + name) else { return }
        guard let identity, reference.entry == SnapshotNames.stream(identity) else { throw SnapshotError.exists(name) }
    }

    /// Stores a descriptor, makes it and the content durable, and gives them a name.
    func publish(
        _ descriptor: SnapshotDescriptor, _ upper: StoredUpper, as name: ByteString, parent: StoredSnapshot?, image: StoredImage?
    ) throws -> StoredSnapshot {
        let bytes = descriptor.canonicalBytes
        let identity = descriptor.identity
        let image = try image ?? images.image(descriptor.imageManifest)
        // A descriptor without a digest of the content may be that of two disks.
        if let known = try repository.stream(SnapshotNames.stream(identity)), let old = try? repository.snapshot(known, expected: identity),
            old.upper != upper.stream
        {
            throw SnapshotError.sameIdentity(identity)
        }
        let document = try bytes.withUnsafeBytes { try repository.storeObject($0) }
        var builder = try repository.makeStreamBuilder(contentType: SnapshotNames.contentType)
        builder.addNamedReference(SnapshotNames.upperKey, upper.stream)
        if let parent { builder.addNamedReference(SnapshotNames.parentKey(parent.identity), parent.stream) }
        if let image { builder.addNamedReference(SnapshotNames.imageKey(image.manifestDigest), image.manifestStream) }
        try builder.external(document.id, size: document.size)
        let stream = try builder.finish()
        var publication = Repository.Publication()
        publication.stream(SnapshotNames.upperStream(upper.root), upper.stream)
        publication.stream(SnapshotNames.stream(identity), stream.id)
        // The image by its name, too: its stream is another object after an upgrade or a repair.
        let imagePath = SnapshotNames.images + "/" + name
        if let image { publication.streamReference(imagePath, to: StreamName.manifest(image.manifestDigest)) }
        publication.streamReference(SnapshotNames.references + "/" + name, to: SnapshotNames.stream(identity))
        try repository.publish(publication)
        if image == nil { try repository.removeStreamReference(imagePath) }
        return StoredSnapshot(
            identity: identity, descriptor: descriptor, stream: stream.id, upper: upper.stream, parentStream: parent?.stream,
            imageStream: image?.manifestStream)
    }
}
