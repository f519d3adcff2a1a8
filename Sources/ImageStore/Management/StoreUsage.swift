public import ComposefsBytes
package import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsRepository

/// What one image costs.
///
/// An image keeps its manifest, its config, its layers with the objects of their files, its EROFS images, kept blobs, and the artifacts that
/// are recorded as its referrers. An object counts once for each image, however often the image needs it.
public struct ImageUsage: Sendable, Hashable {
    /// All tags of the image, or all names below `images/refs`, ascending; none if only its use keeps it.
    public var names: [ByteString]
    /// Nil for an image that was made from a directory.
    public var manifestDigest: ContentDigest?
    /// All EROFS images.
    public var imageIDs: [ObjectID]
    /// What uses the image.
    public var uses: [ImageUse]
    /// All that it keeps.
    public var total: SpaceUse
    /// What no other image keeps.
    public var exclusive: SpaceUse
    /// What other images keep, too.
    public var shared: SpaceUse { total - exclusive }
    /// What a prune would remove after the image's names; nothing if it is in use. Nil if it is unknown what is in
    /// use.
    public var reclaimable: SpaceUse?
}

/// Where a store's space is.
public struct StoreUsage: Sendable {
    public var objects: SpaceUse
    /// The names in `streams/`, and the objects that they lead to, each once.
    public var streams: SpaceUse
    /// The names in `images/`, and the objects that they lead to, each once.
    public var images: SpaceUse
    /// The disks of images and their streams; part of `objects`.
    public var disks: SpaceUse
    /// What running and interrupted operations have stored besides objects: partial downloads, temporary files.
    public var temporaries: SpaceUse
    /// Damaged files that were set aside.
    public var damaged: SpaceUse
    /// What a garbage collection would remove; nil if it would be refused.
    public var garbage: GarbageReport?
    /// The objects of `garbage`.
    public var garbageObjects: SpaceUse
    /// Why a garbage collection would be refused.
    public var garbageFault: String?
    /// What each image costs, by its first name.
    public var costs: [ImageUsage]
    /// Streams and images that could not be read, and why: what they keep is missing in the costs.
    public var unreadable: [BrokenImageName]
}

extension ImageStore {
    /// Adds up what each image costs and where the store's space is. Each stream and each EROFS image is read once, each object's status once.
    ///
    /// - Parameters:
    ///   - withGarbage: also determine what a garbage collection would remove.
    ///   - cancellation: ends the call.
    /// - Throws: `RepositoryError`, which is `.cancelled` after a cancellation.
    package func usage(withGarbage: Bool = true, cancellation: Cancellation = Cancellation()) throws -> StoreUsage {
        // Unknown if the system does not tell.
        let uses = try? repository.imageUses()
        var roots = try UsageRoots(self)
        if let uses { try roots.addUsed(uses, self) }
        let accounts = try repository.accounts(
            roots.images.map(\.root), others: roots.others, withGarbage: withGarbage, cancellation: cancellation)
        let disks = try repository.streamNames().filter {
            $0.hasPrefix(DiskRecord.streamPrefix) || $0.hasPrefix(StreamName.layerImagePrefix)
        }
        let diskSpace =
            disks.isEmpty
            ? nil
            : try repository.accounts([AccountRoot(streams: disks)], others: AccountRoot(), cancellation: cancellation).roots.first?.total
        let isKnown = uses?.isComplete == true
        var costs: [ImageUsage] = []
        for (image, account) in zip(roots.images, accounts.roots) {
            let found = uses?.uses(of: image.ids) ?? []
            costs.append(
                ImageUsage(
                    names: image.names, manifestDigest: image.digest, imageIDs: image.ids, uses: found, total: account.total,
                    exclusive: account.exclusive, reclaimable: isKnown ? found.isEmpty ? account.alone : SpaceUse() : nil))
        }
        return StoreUsage(
            objects: accounts.objects, streams: accounts.streams, images: accounts.images, disks: diskSpace ?? SpaceUse(),
            temporaries: accounts.temporaries,
            damaged: accounts.damaged, garbage: accounts.garbage, garbageObjects: accounts.garbageObjects,
            garbageFault: accounts.garbageFault.map { "\($0)" }, costs: costs,
            unreadable: accounts.unreadable.map { BrokenImageName(name: $0.name, reason: $0.why) })
    }
}

extension ImageStore {
    /// The space of what some images keep: of each as if it were alone.
    ///
    /// - Parameters:
    ///   - manifests: of tagged images, or of others.
    ///   - images: those that were made from directories.
    package func space(
        ofManifests manifests: [ContentDigest], images: [ObjectID], cancellation: Cancellation = Cancellation()
    ) throws -> (manifests: [ContentDigest: SpaceUse], images: [ObjectID: SpaceUse]) {
        guard !(manifests.isEmpty && images.isEmpty) else { return ([:], [:]) }
        let roots = try UsageRoots(self)
        let digests = Set(manifests).sorted()
        let ids = Set(images).sorted()
        let accounts = try repository.accounts(
            digests.map { roots.withArtifacts([StreamName.manifest($0), StreamName.blob($0)]) } + ids.map { AccountRoot(images: [$0]) },
            others: AccountRoot(),
            cancellation: cancellation
        ).roots.map(\.total)
        return (
            Dictionary(uniqueKeysWithValues: zip(digests, accounts)),
            Dictionary(uniqueKeysWithValues: zip(ids, accounts.dropFirst(digests.count)))
        )
    }
}

/// What keeps objects, by image.
private struct UsageRoots {
    struct Image {
        var names: [ByteString]
        var digest: ContentDigest?
        var ids: [ObjectID]
        var root: AccountRoot
    }

    var images: [Image] = []
    /// References that belong to no image.
    var others = AccountRoot()
    /// The artifacts of each subject.
    private var artifacts: [ByteString: [ByteString]] = [:]

    init(_ store: ImageStore) throws {
        var tags: [ContentDigest: [ByteString]] = [:]
        var indexes: [ByteString: StoredIndex] = [:]
        var unclaimed: Set<ByteString> = []
        for reference in try store.repository.streamReferences() {
            if let (subjects, artifact) = Self.record(reference) {
                for subject in subjects { artifacts[subject, default: []].append(artifact) }
                unclaimed.insert(artifact)
            } else if reference.name.hasPrefix(ImageTag.prefix),
                let digest = StreamName.digest(in: reference.entry, after: StreamName.manifestPrefix)
            {
                let name = ByteString(Array(reference.name.bytes.dropFirst(ImageTag.prefix.count)))
                tags[digest, default: []].append(ImageTag.decode(name))
            } else if reference.name.hasPrefix(IndexName.prefix),
                let digest = StreamName.digest(in: reference.entry, after: StreamName.blobPrefix),
                let index = (try? store.index(digest)) ?? nil
            {
                indexes[ImageTag.decode(ByteString(Array(reference.name.bytes.dropFirst(IndexName.prefix.count))))] = index
            } else {
                others.streams.append(reference.entry)
            }
        }
        // A name that an image and an index have is removed from both, so it costs both.
        func streams(of index: StoredIndex) throws -> [ByteString] {
            [StreamName.blob(index.digest)] + (try store.manifests(of: index)).map(\.stream)
        }
        for (digest, names) in tags {
            let own = names.compactMap { indexes.removeValue(forKey: $0) }
            let root = withArtifacts([StreamName.manifest(digest)] + (try own.flatMap { try streams(of: $0) }))
            unclaimed.subtract(root.streams)
            let ids = Set(store.imageIDs(of: digest) + own.flatMap { store.imageIDs(of: $0) })
            images.append(Image(names: names.sorted(), digest: digest, ids: ids.sorted(), root: root))
        }
        for (digest, named) in Dictionary(grouping: indexes, by: { $0.value.digest }) {
            guard let index = named.first?.value else { continue }
            let root = withArtifacts(try streams(of: index))
            unclaimed.subtract(root.streams)
            images.append(Image(names: named.map(\.key).sorted(), digest: digest, ids: store.imageIDs(of: index), root: root))
        }
        var directories: [ObjectID: [ByteString]] = [:]
        for reference in try store.repository.imageReferences() {
            if let id = ObjectID(hex: reference.entry.bytes) { directories[id, default: []].append(reference.name) }
        }
        for (id, names) in directories {
            images.append(Image(names: names.sorted(), ids: [id], root: AccountRoot(images: [id])))
        }
        // Artifacts of subjects that are not here.
        others.streams += unclaimed.sorted()
        images.sort { ($0.names.first ?? "", $0.digest == nil ? 1 : 0) < ($1.names.first ?? "", $1.digest == nil ? 1 : 0) }
    }

    /// The streams of an image or index and of what belongs to it, if a reference records an artifact or a disk.
    private static func record(_ reference: Reference) -> (subjects: [ByteString], artifact: ByteString)? {
        guard SubjectRecord.isRecord(reference.name), let subject = SubjectRecord.parse(reference.name)?.subject else { return nil }
        return ([StreamName.manifest(subject), StreamName.blob(subject)], reference.entry)
    }

    /// Images that only their use keeps.
    mutating func addUsed(_ uses: ImageUses, _ store: ImageStore) throws {
        guard !uses.images.isEmpty else { return }
        var known = Set(images.flatMap(\.ids))
        let tagged = Set(images.compactMap(\.digest))
        for name in try store.manifestsInUse(uses).sorted() {
            guard let digest = StreamName.digest(in: name, after: StreamName.manifestPrefix), !tagged.contains(digest) else { continue }
            let ids = store.imageIDs(of: digest)
            known.formUnion(ids)
            images.append(Image(names: [], digest: digest, ids: ids, root: withArtifacts([name])))
        }
        for id in uses.images.keys.sorted() where !known.contains(id) {
            // A disk that is mounted is no image.
            guard (try? store.repository.beginsLikeImage(id)) == true else { continue }
            images.append(Image(names: [], ids: [id], root: AccountRoot(images: [id])))
        }
    }

    /// Manifests or indexes, and the artifacts that refer to them, directly or indirectly.
    func withArtifacts(_ streams: [ByteString]) -> AccountRoot {
        var found: Set<ByteString> = []
        var pending = streams
        while let next = pending.popLast() {
            guard found.insert(next).inserted else { continue }
            pending += artifacts[next] ?? []
        }
        return AccountRoot(streams: found.sorted())
    }
}
