import ComposefsBoot
public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository

// A sealed image is another image than the one that it was made of: the same layers, a config that states the digest of the root file system,
// and a manifest that states the digests of its parts (OCI sealing specification of composefs). An artifact that refers to it has signatures
// of these digests, for the kernel of every host that pulls it.

/// Options of sealing.
public struct SealOptions: Sendable {
    /// The tag of the sealed image; nil for the one that led to the image, which moves to the sealed one.
    public var name: ByteString?
    /// Signs the digests; nil makes no artifact.
    public var signer: (any VeritySigner)?
    /// Whether the manifest states the digests of the layers, too.
    public var statesLayers = false
    /// Whether the image for booting is made and recorded, and its digest stated.
    public var bootable = false
    /// Ends the work with `CancellationError`. Nothing is published then.
    public var cancellation = Cancellation()

    public init(name: ByteString? = nil, signer: (any VeritySigner)? = nil) {
        self.name = name
        self.signer = signer
    }
}

/// A sealed image.
public struct SealedImage: Sendable, Hashable {
    /// The tag.
    public var name: ByteString
    public var manifestDigest: ContentDigest
    public var configDigest: ContentDigest
    /// The digest in the label: the ID of the EROFS image in format V1.
    public var imageID: ObjectID
    /// The ID of the image for booting in format V1; nil if it was not asked for.
    public var bootImageID: ObjectID?
    /// The IDs of the EROFS images of the layers alone, from bottom to top; nil if they are neither stated nor signed.
    public var layerIDs: [ObjectID]?
    /// The manifest of the artifact with the signatures; nil if there is no key.
    public var signatureDigest: ContentDigest?
}

/// Why an image cannot be sealed.
public enum SealingError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The image has no tag, and none was given for the sealed one.
    case noName(ContentDigest)

    public var description: String {
        switch self {
        case .noName(let digest): "\(digest) has no name, and the sealed image needs one"
        }
    }
}

extension ImageStore {
    /// Seals a stored image: stores a config with the label `SealLabel.key`, a manifest that states the digests, and with a signer an artifact
    /// that refers to the manifest, and tags the sealed image, in one durable step. The layers and the EROFS images stay as they are.
    ///
    /// The same image and options result in the same documents. A manifest of Docker's, which has no annotations, becomes one of OCI.
    ///
    /// - Parameter reference: the image, for `resolve`.
    /// - Throws: `ImageStoreError.noSuchImage`, `.isArtifact`, `.damaged`; `SealingError`; `BootTransformError` if the image cannot be booted;
    ///   `RepositoryError.signature` if a digest cannot be signed or the kernel refuses a signature. The store is unchanged then, except for
    ///   unreferenced objects.
    @discardableResult
    public func sealImage(_ reference: ByteString, _ options: SealOptions = SealOptions()) throws -> SealedImage {
        if let name = options.name { try ImageTag.check(name) }
        return try repository.storeAsOne { try Sealing(self, reference, options).run() }
    }
}

private struct Sealing {
    let store: ImageStore
    let options: SealOptions
    let image: StoredImage
    let config: ImageConfig
    let name: ByteString
    let layers: [(diffID: ContentDigest, stream: ObjectID)]
    var repository: Repository { store.repository }

    init(_ store: ImageStore, _ reference: ByteString, _ options: SealOptions) throws {
        let (name, image) = try store.open(reference)
        guard let config = image.config else { throw ImageStoreError.isArtifact(image.manifestDigest) }
        guard config.diffIDs.count == image.manifest.layers.count else {
            throw ImageStoreError.damaged(
                stream: StreamName.config(image.configDigest),
                .diffIDCount(config: config.diffIDs.count, manifest: image.manifest.layers.count))
        }
        let isNamed = name != ByteString(image.manifestDigest.description)
        guard let name = options.name ?? (isNamed ? name : nil) else { throw SealingError.noName(image.manifestDigest) }
        self.store = store
        self.options = options
        self.image = image
        self.config = config
        self.name = name
        layers = try store.layers(of: image)
    }

    func run() throws -> SealedImage {
        let tree = try store.containerTree(of: layers)
        let merged = try store.imageID(of: tree, .v1)
        var bootable: ObjectID?
        if options.bootable {
            bootable = try store.imageID(of: store.bootTree({ try store.containerTree(of: layers, $0) }, .allowlistOnly), .v1)
        }
        let ofLayers = options.statesLayers || options.signer != nil ? try layerIDs() : nil

        let config = try config.sealed(merged)
        var digests = [SealedPart.config: id(of: config.bytes), .merged: merged]
        digests[.bootable] = bootable
        let manifest = try image.manifest.convertedToOCI(isImage: true).sealed(
            config: config.bytes, digests, layers: options.statesLayers ? ofLayers : nil, repository.algorithm)
        digests[.manifest] = id(of: manifest.bytes)
        let artifact = try options.signer.map { try signatures(digests, ofLayers ?? [], by: $0) }

        try options.cancellation.check()
        let signature = try publish(manifest, config.bytes, tree, artifact)
        return SealedImage(
            name: name, manifestDigest: ContentDigest.of(manifest.bytes), configDigest: manifest.config.digest, imageID: merged,
            bootImageID: bootable, layerIDs: ofLayers, signatureDigest: signature)
    }

    private func id(of bytes: [UInt8]) -> ObjectID { bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, repository.algorithm) } }

    /// The images of the layers: each has the tree of an image with this layer only.
    private func layerIDs() throws -> [ObjectID] {
        var known: [ContentDigest: ObjectID] = [:]
        return try layers.map { layer in
            if let id = known[layer.diffID] { return id }
            try options.cancellation.check()
            let id = try store.imageID(of: store.containerTree(of: [layer]), .v1)
            known[layer.diffID] = id
            return id
        }
    }

    // MARK: Signatures

    /// The artifact, in the order that the specification demands. It has no place for layers, so they are last.
    private func signatures(
        _ digests: [SealedPart: ObjectID], _ layers: [ObjectID], by signer: any VeritySigner
    ) throws -> NewArtifact {
        var signed: [(SealedPart, ObjectID)] = []
        for part in [SealedPart.manifest, .config, .merged, .bootable] {
            if let id = digests[part] { signed.append((part, id)) }
        }
        // Two layers may have the same image.
        for id in layers where !signed.contains(where: { $0 == (.layer, id) }) { signed.append((.layer, id)) }
        var artifact = NewArtifact(artifactType: ImageSeal.artifactType, files: [])
        for (part, id) in signed {
            let signature: [UInt8]
            do throws(VeritySignatureError) {
                signature = try signer.signature(of: id)
            } catch {
                throw RepositoryError.signature(ByteString("\(part.rawValue) \(id.hex)"), .signer(error))
            }
            artifact.files.append(
                .init(
                    content: signature, mediaType: ImageSeal.signatureType,
                    annotations: [part.annotation(repository.algorithm): id.hex]))
        }
        // That of the image, or the epoch: the current time would make another artifact each time.
        let created = config.created.flatMap { isTime($0) ? $0 : nil } ?? "1970-01-01T00:00:00Z"
        artifact.annotations["org.opencontainers.image.created"] = created
        return artifact
    }

    // MARK: Publishing

    /// Stores the images and the documents, with their signatures if the kernel knows the certificate, and publishes everything in one step.
    private func publish(_ manifest: Manifest, _ config: [UInt8], _ tree: FileTree, _ artifact: NewArtifact?) throws -> ContentDigest? {
        if let artifact {
            var offered: [ObjectID: [UInt8]] = [:]
            for file in artifact.files {
                for text in file.annotations.values {
                    if let id = ObjectID(hex: text), let content = file.content { offered[id] = content }
                }
            }
            repository.offerSignatures(offered)
        }
        var publication = Repository.Publication()
        for layer in layers { publication.stream(StreamName.layer(layer.diffID), layer.stream) }
        var images = try store.storeImages(of: tree, &publication)
        // The reference implementation looks for the image of the label.
        if images[.v1] == nil, repository.erofsFormats.default != .v0 {
            let id = try store.storeImage(of: tree, .v1)
            publication.image(id)
            images[.v1] = id
        }
        var boot = image.bootImages
        if options.bootable {
            let made = try store.makeBootImages(.all(.allowlistOnly), &publication) { try store.containerTree(of: layers, $0) }
            boot = store.bootReferences(boot, made.all)
        }
        let digest = ContentDigest.of(manifest.bytes)
        _ = try store.store(
            manifest: manifest, digest: digest, config: config, layers: layers.map { ($0.diffID, $0.stream) },
            images: image.imageIDs(besides: images), boot: boot, keptBlobs: image.keptBlobs, tag: name,
            source: SourceHint.text(of: image, in: repository), &publication)
        guard let artifact else {
            try repository.publish(publication)
            return nil
        }
        return try store.publish(artifact, of: manifest, digest, publication, options.cancellation)
    }
}
