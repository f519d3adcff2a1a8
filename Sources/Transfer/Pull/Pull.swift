import ComposefsBoot
import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsDisks
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSplitStream
public import ComposefsTransports
import Synchronization

/// Pulls an image from a source into a repository: each layer as a split stream with verified objects, the EROFS image of the merged tree,
/// config and manifest, and a tag that keeps all of them.
///
/// Readers of the store see no change until everything is verified and durable; then the tag appears. If a pull is killed, the next one
/// uses the layers that it had completed.
///
/// Blocks the caller's thread; the work runs on other threads.
///
/// - Parameters:
///   - source: the source of the image.
///   - repository: the repository that stores it.
///   - options: platform, policy, tag, limits, cancellation and observer.
/// - Throws: `OCIError` if a document or reference is refused, `PullError` if content is refused, `SignatureRefusal`, `ImageStoreError.invalidTag`,
///   `RepositoryError`, `CancellationError`, and errors of the source. A layer's error is the cause of a `PullError.layer`.
public func pullImage(
    from source: any ImageSource, into repository: Repository, _ options: PullOptions = PullOptions()
) throws -> PullResult {
    try ImagePull(source: source, repository: repository, options: options, reporter: PullReporter(options.observer)).run()
}

struct ImagePull {
    let source: any ImageSource
    let repository: Repository
    var options: PullOptions
    let reporter: PullReporter
    /// Whether the pull is over with this image: others from the same index may follow.
    var isLast = true
    /// Whether the image gets a tag. One that an index keeps needs none.
    var isTagged = true
    let profile = PullProfile()
    var store: ImageStore { ImageStore(repository) }

    func run() throws -> PullResult {
        if let name = options.name { try ImageTag.check(name) }
        reporter.image(.resolving(reference: source.canonicalName))
        try requireAcceptableSource()
        let local = try localImage()
        if let local, options.policy == .missing || options.policy == .never { return try use(local, .present) }
        if source.isRemote, options.policy == .never { throw try notPresent() }
        let resolved: ResolvedManifest
        do {
            resolved = try resolveManifest(source, platform: options.platform, limits: options.limits, options.cancellation)
        } catch {
            guard options.policy == .newer, let local else { throw error }
            // A cancelled pull must not return another image instead.
            try options.cancellation.check()
            return try use(local, .unreachable(reason: "\(error)"))
        }
        try requireAccepted(resolved)
        if options.policy == .newer, let local, local.manifestDigest == resolved.digest {
            var result = try use(local, .current)
            if options.storesReferrers { try pullReferrers(of: resolved, &result) }
            return result
        }
        // The canonical name of a short name is known only after the manifest has been resolved.
        return try take(resolved, options.name ?? ByteString(source.canonicalName))
    }

    /// Pulls a manifest that has been resolved and accepted.
    ///
    /// - Parameter other: an additional tag for the image.
    func take(_ resolved: ResolvedManifest, _ name: ByteString, other: ByteString? = nil) throws -> PullResult {
        if isTagged { try ImageTag.check(name) }
        let manifest = resolved.manifest
        reporter.resolved(PullEvent.Resolution(manifest: resolved.digest, layers: manifest.layers))
        let before = repository.signatureCounts
        let previous = isTagged ? try store.tagged(name) : nil
        var result = try repository.storeAsOne {
            let configBytes = try readConfig(manifest.config)
            let result =
                if let config = try manifest.imageConfig(from: configBytes) {
                    try pullContainer(resolved, config, name)
                } else {
                    try pullArtifact(resolved, configBytes, name)
                }
            repository.dropBlob(ByteString(manifest.config.digest.description))
            return result
        }
        if options.storesReferrers {
            try pullReferrers(of: resolved, &result)
            if isLast { try options.downloadsEnded?() }
        }
        result.signatures = repository.signatureCounts - before
        if let other {
            try store.tag(resolved.digest, as: other)
            result.otherName = other
        }
        finish(&result, previous)
        return result
    }

    /// Pulls a manifest of an index, which keeps it, without a tag.
    func takeListed(_ resolved: ResolvedManifest) throws -> PullResult {
        var pull = self
        (pull.isTagged, pull.isLast) = (false, false)
        pull.options.bootImages = nil
        // It refers to no file system that could be sealed.
        if try config(of: resolved.manifest) == nil { pull.options.requiresSeal = false }
        var resolved = resolved
        // The referrers of the index are not its own.
        resolved.index = nil
        return try pull.take(resolved, ByteString(resolved.digest.description))
    }

    private func finish(_ result: inout PullResult, _ previous: ContentDigest?) {
        if let previous, previous != result.manifestDigest {
            result.previousManifestDigest = previous
            reporter.image(.tagMoved(from: previous, to: result.manifestDigest))
        }
        reporter.image(.done)
    }

    // MARK: Images in the store

    /// The stored image of the reference, if the policy permits its use; nil if it has to be pulled.
    private func localImage() throws -> StoredImage? {
        guard source.isRemote, options.policy != .always else { return nil }
        // The registry may have a variant that matches the platform better.
        let found = try store.localImage(of: source) { candidate in
            let rank = options.platform.rank(of: candidate)
            return options.policy == .never ? rank != nil : rank == 0
        }
        guard let found, options.policy != .never else { return found }
        // An image whose EROFS images are missing is stored again, which creates them.
        if found.isContainer {
            for version in repository.erofsFormats.all {
                if let id = found.imageID(version), try !repository.hasImage(id) { return nil }
            }
        }
        if options.keepsBlobs, found.isContainer {
            let kept = Set(found.keptBlobs.map(\.digest) + found.layerIdentifiers)
            guard found.manifest.layers.allSatisfy({ kept.contains($0.digest) }) else { return nil }
        }
        // If a seal is required, the source may have a sealed image of this name.
        if options.requiresSeal, (try? store.sealedImageID(of: found)) == nil { return nil }
        // If signatures are required or created, an image without one is pulled again.
        guard options.imageSignatures == .require || repository.signsObjects, found.isContainer else { return found }
        guard let image = found.imageID(repository.erofsFormats.default) else { return nil }
        return try repository.signature(ofObject: image) == nil ? nil : found
    }

    private func notPresent() throws -> PullError {
        let other = try store.localImage(of: source) { _ in true }
        return .notPresent(ByteString(source.canonicalName), wanted: options.platform, found: other?.config?.platform)
    }

    private func use(_ image: StoredImage, _ outcome: PullResult.Outcome) throws -> PullResult {
        reporter.resolved(PullEvent.Resolution(manifest: image.manifestDigest, layers: image.manifest.layers))
        var images: [ErofsVersion: ObjectID] = [:]
        for version in repository.erofsFormats.all { images[version] = image.isContainer ? image.imageID(version) : nil }
        if options.requiresSeal { _ = try refusing { try store.sealedImageID(of: image) } }
        try requireSignature(images)
        for index in image.manifest.layers.indices { reporter.layer(index, .skipped(.present)) }
        let name = options.name ?? source.localNames.map { ByteString($0) }.first { (try? store.tagged($0)) == image.manifestDigest }
        let tag = name ?? ByteString(source.canonicalName)
        let previous = try store.tagged(tag)
        // Before the tag: an image that has no such boot image is not the one that was asked for.
        let bootImage = try options.bootImages.map { try store.recordBootImages($0, of: image.manifestDigest) }
        let disks = try options.disks.map { [reporter] request in
            var limits = DiskLimits()
            limits.checksSpace = options.checksSpace
            limits.observer = { reporter.disk(request.kind, $0) }
            let disk = try ImageDisks(store).keep(request, of: image, limits)
            reporter.image(.diskStored(request.kind))
            return disk
        }
        if previous != image.manifestDigest { try store.tag(image.manifestDigest, as: tag) }
        var result = PullResult(
            manifestDigest: image.manifestDigest, manifestStream: image.manifestStream, configDigest: image.configDigest,
            configStream: image.configStream, imageIDs: images, imageID: images[repository.erofsFormats.default], name: tag,
            layers: PulledLayer.list(image.manifest, image.config), newLayers: 0, presentLayers: Set(image.layerIdentifiers).count,
            statistics: LayerStatistics(), config: image.config, profile: profile.seconds)
        result.outcome = outcome
        result.bootImage = bootImage
        result.disks = disks
        finish(&result, previous)
        return result
    }

    /// An image's config; nil for an artifact.
    func config(of manifest: Manifest) throws -> ImageConfig? {
        manifest.mayBeImage ? try manifest.imageConfig(from: readConfig(manifest.config)) : nil
    }

    // MARK: Images with a root file system

    private func pullContainer(_ resolved: ResolvedManifest, _ config: ImageConfig, _ name: ByteString) throws -> PullResult {
        let manifest = resolved.manifest
        guard config.diffIDs.count == manifest.layers.count else {
            throw PullError.layerCount(layers: manifest.layers.count, diffIDs: config.diffIDs.count)
        }
        let sealed = options.requiresSeal ? try refusing { try SealLabel.id(in: config, repository.algorithm) } : nil
        let seal = try readSeal(resolved, config.bytes)
        let tasks = zip(manifest.layers, config.diffIDs).enumerated().map { LayerTask(index: $0, descriptor: $1.0, diffID: $1.1) }
        let limits = treeLimits(manifest)
        // A fault in the merge could not reach the network. Disks are made while layers arrive.
        let isHeldBack = options.disks.isEmpty && options.downloadsEnded != nil
        let trees = TreePull(
            options.disks, store, resolved.digest, config.diffIDs, limits, reporter, options.cancellation, isHeldBack: isHeldBack)
        defer { trees.end() }
        let early = EarlySync(repository)
        defer { early.end() }
        var pull = layerPull
        pull.storedObjects = trees.storedObjects
        pull.wasStored = { diffID, stream, newBytes in
            trees.stored(diffID, stream)
            early.stored(newBytes)
        }
        let layers = try pull.run(tasks, count: manifest.layers.count)
        let keptBlobs = try layerPull.keepBlobs(tasks, count: manifest.layers.count)
        if isLast, !options.storesReferrers { try options.downloadsEnded?() }
        trees.begin()
        let streams = config.diffIDs.compactMap { diffID in layers.streams[diffID].map { (diffID: diffID, stream: $0) } }

        reporter.image(.merging)
        let tree = try profile.measure(.merge) {
            var tree = try trees.takeTree()
            transformForContainer(&tree)
            return tree
        }
        reporter.image(.writingImage)
        var publication = Repository.Publication()
        for (diffID, stream) in streams { publication.stream(StreamName.layer(diffID), stream) }
        let images = try profile.measure(.image) { try store.storeImages(of: tree, &publication) }
        if let sealed {
            let actual = try images[.v1] ?? store.imageID(of: tree, .v1)
            guard actual == sealed else { throw PullError.seal(.otherImage(.merged, sealed: sealed, actual: actual)) }
        }
        try seal?.check(.merged, images[.v1])
        try requireSignature(images)
        let known = (try? store.image(resolved.digest)) ?? nil
        let (boot, bootImage) = try profile.measure(.image) {
            try bootImages(known, &publication) { filtering in
                guard filtering != .allowlistOnly else { return tree }
                return try store.containerTree(of: streams.map { ($0.diffID, $0.stream) }, filtering)
            }
        }
        if repository.erofsFormats.default != .v0 {
            try seal?.check(.bootable, boot.first { $0.key == ReferenceKey.bootImage(.v1, .allowlistOnly) }?.id)
        }

        let kept = try profile.measure(.disk) { try trees.finish(&publication) }
        reporter.image(.publishing)
        let published = try profile.measure(.sync) {
            try early.finish()
            return try store.publish(
                manifest: manifest, digest: resolved.digest, config: config.bytes, layers: streams.map { ($0.diffID, $0.stream) },
                images: try known?.imageIDs(besides: images, where: store.hasIntactImage) ?? images, boot: boot, keptBlobs: keptBlobs,
                tag: isTagged ? name : nil, source: recordedReference, publication)
        }
        try repository.clearStaged(config.diffIDs.map(StreamName.layer) + keptBlobs.map { StreamName.blob($0.digest) })
        var result = result(resolved, name, published, layers, images: images, config: config)
        result.bootImage = bootImage
        result.disks = kept
        return result
    }

    private func treeLimits(_ manifest: Manifest) -> DiskLimits {
        let compressed = manifest.layers.reduce(UInt64(0)) { $0 &+ min($1.size, UInt64(UInt32.max) << 8) }
        var limits = DiskLimits(entries: options.limits.imageEntries, treeBytes: options.limits.treeBytes(ofLayers: compressed))
        limits.checksSpace = options.checksSpace
        return limits
    }

    /// References to images for booting: those that are recorded already, made anew if they are damaged, and those that the options ask for.
    private func bootImages(
        _ known: StoredImage?, _ publication: inout Repository.Publication, tree: (XattrFiltering) throws -> FileTree
    ) throws -> (references: [(key: String, id: ObjectID)], chosen: BootImage?) {
        var references: [(key: String, id: ObjectID)] = []
        var damaged: Set<XattrFiltering> = []
        for recorded in known?.bootImages ?? [] {
            if try store.hasIntactImage(recorded.id) {
                references.append(recorded)
            } else if let filtering = XattrFiltering.allCases.first(where: { ReferenceKey.isBootImage(recorded.key, $0) }) {
                damaged.insert(filtering)
            }
        }
        var made: [BootImage] = []
        for filtering in damaged where options.bootImages != .all(filtering) {
            made += try store.makeBootImages(.all(filtering), &publication, tree: tree).all
        }
        var chosen: BootImage?
        if let request = options.bootImages {
            let new = try store.makeBootImages(request, &publication, tree: tree)
            made += new.all
            chosen = new.chosen
        }
        return (store.bootReferences(references, made), chosen)
    }

    // MARK: Signatures that come with the image

    /// Reads the digests and signatures that the image states, compares its documents with them, and passes the signatures to the
    /// repository.
    private func readSeal(_ resolved: ResolvedManifest, _ configBytes: [UInt8]) throws -> ImageSeal? {
        if options.imageSignatures == .require, !repository.isSecure {
            throw PullError.seal(.noVerity)
        }
        guard options.imageSignatures != .ignore else { return nil }
        var seal = try ImageSeal(resolved.manifest, repository.algorithm)
        if repository.isSecure {
            try seal.addArtifacts(of: store, subject: resolved.digest)
            if !source.isRemote || options.imageSignatures == .require {
                try seal.addArtifacts(of: source, subject: resolved.digest, options.limits, options.cancellation)
            }
        }
        try seal.check(.manifest, resolved.manifest.bytes)
        try seal.check(.config, configBytes)
        repository.offerSignatures(seal.signatures)
        return seal
    }

    /// Runs `body`, which decides whether an image has the seal that is required.
    private func refusing(_ body: () throws -> ObjectID) throws -> ObjectID {
        do {
            return try body()
        } catch let fault as SealFault {
            throw PullError.seal(fault)
        } catch ImageStoreError.seal(let fault) {
            throw PullError.seal(fault)
        }
    }

    private func requireSignature(_ images: [ErofsVersion: ObjectID]) throws {
        guard options.imageSignatures == .require, let image = images[repository.erofsFormats.default],
            try repository.signature(ofObject: image) == nil
        else { return }
        throw PullError.seal(repository.signatureCounts.unknown > 0 ? .unknownCertificate(image) : .noSignature(image))
    }

    // MARK: Artifacts

    private func pullArtifact(_ resolved: ResolvedManifest, _ configBytes: [UInt8], _ name: ByteString) throws -> PullResult {
        guard !options.requiresSeal else { throw PullError.seal(.noLabel) }
        guard options.disks.isEmpty else { throw ImageStoreError.isArtifact(resolved.digest) }
        let (layers, published) = try storeArtifact(
            resolved.manifest, resolved.digest, configBytes, tag: isTagged ? name : nil, Repository.Publication(), reporter)
        if isLast, !options.storesReferrers { try options.downloadsEnded?() }
        return result(resolved, name, published, layers, images: [:], config: nil)
    }

    func storeArtifact(
        _ manifest: Manifest, _ digest: ContentDigest, _ configBytes: [UInt8], tag: ByteString?, _ publication: Repository.Publication,
        _ reporter: PullReporter
    ) throws -> (PulledLayers, (manifestStream: ObjectID, configStream: ObjectID)) {
        let pull = LayerPull(source: source, repository: repository, options: options, reporter: reporter, profile: profile)
        let layers = try pull.run(
            manifest.layers.enumerated().map { LayerTask(index: $0, descriptor: $1, diffID: nil) }, count: manifest.layers.count)
        reporter.image(.publishing)
        var publication = publication
        let streams = manifest.layers.compactMap { layer in layers.streams[layer.digest].map { (layer.digest, $0) } }
        for (digest, stream) in streams where try !store.isLayerName(digest) { publication.stream(StreamName.layer(digest), stream) }
        let published = try profile.measure(.sync) {
            try store.publish(
                manifest: manifest, digest: digest, config: configBytes, layers: streams, images: [:], tag: tag, source: recordedReference,
                publication)
        }
        try repository.clearStaged(manifest.layers.map { StreamName.layer($0.digest) })
        return (layers, published)
    }

    // MARK: Internals

    /// The source to record: for a registry, the complete reference that was resolved.
    var recordedReference: ByteString? {
        options.recordedReference.map { $0.isEmpty ? ByteString("docker://" + source.canonicalName) : $0 }
    }

    private var layerPull: LayerPull {
        LayerPull(source: source, repository: repository, options: options, reporter: reporter, profile: profile)
    }

    /// Reads and verifies the config. A remote source transfers it once for all pulls that need it at the same time: a stored config is not
    /// read again, and a fetched one is kept as a partial blob until it is published.
    func readConfig(_ descriptor: Descriptor) throws -> [UInt8] {
        if let data = descriptor.data { return try read(DataBlobReader(data), descriptor) }
        guard source.isRemote else { return try readConfig(descriptor, nil) }
        guard descriptor.size <= UInt64(ImageLimits.configBytes) else {
            throw PullError.blobTooLarge(descriptor.digest, announced: descriptor.size, limit: ImageLimits.configBytes)
        }
        let digest = descriptor.digest
        // This thread holds no other lease; see `LayerQueue`.
        let lease = try pollingForLease(options.cancellation) {
            try repository.leaseBlob(ByteString(digest.description), size: descriptor.size)
        }
        // Checked with the lease, because its previous holder may have published the config.
        if let stored = store.storedConfig(digest) {
            lease.remove()
            return stored
        }
        lease.keep(limit: options.keptBytesLimit)
        return try readConfig(descriptor, lease)
    }

    private func readConfig(_ descriptor: Descriptor, _ lease: BlobLease?) throws -> [UInt8] {
        try source.download(descriptor, partial: lease, options.cancellation).verified(by: BlobDownload.Verdict.ofImport) {
            try read($0, descriptor)
        }
    }

    private func read(_ blob: any BlobReader, _ descriptor: Descriptor) throws -> [UInt8] {
        try VerifiedBlob(blob: blob, descriptor: descriptor, profile: profile).readAll(limit: ImageLimits.configBytes)
    }

    private func result(
        _ resolved: ResolvedManifest, _ name: ByteString, _ published: (manifestStream: ObjectID, configStream: ObjectID),
        _ layers: PulledLayers, images: [ErofsVersion: ObjectID], config: ImageConfig?
    ) -> PullResult {
        PullResult(
            manifestDigest: resolved.digest, manifestStream: published.manifestStream,
            configDigest: resolved.manifest.config.digest, configStream: published.configStream, imageIDs: images,
            imageID: images[repository.erofsFormats.default], name: name,
            layers: PulledLayer.list(resolved.manifest, config), newLayers: layers.new, presentLayers: layers.present,
            statistics: layers.statistics, config: config, profile: profile.seconds)
    }
}
