import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

/// The fs-verity digests that an image states for its own documents and EROFS images, and their signatures for the kernel, according to the
/// OCI sealing specification of composefs.
///
/// Annotations contain both: those of the manifest for `merged` and `merged.bootable`, those of the config's descriptor for `config`. An
/// artifact that refers to the manifest can contain them too: each of its layers is a signature in DER, and the layer's annotation states
/// the signed digest. The annotation `composefs.PART.erofs.v1.fsverity-ALGORITHM-12` is the digest of an EROFS image in hexadecimal,
/// `composefs.PART.fsverity-ALGORITHM-12` that of a document; the same key with the suffix `.sig` is the signature in base64.
struct ImageSeal {
    static let artifactType = "application/vnd.composefs.metadata.v1"
    static let signatureType = "application/vnd.composefs.signature.v1+pkcs7"
    /// The most artifacts that are read for one image, and the most layers of each.
    private static let limit = 16

    /// The digests that the image states.
    private(set) var digests: [SealedPart: ObjectID] = [:]
    /// The signatures, by the digest that they sign.
    private(set) var signatures: [ObjectID: [UInt8]] = [:]
    /// The repository's algorithm. Annotations of other algorithms are ignored.
    let algorithm: VerityAlgorithm

    /// Reads the annotations of the manifest.
    ///
    /// - Throws: `PullError.seal` if an annotation is not valid.
    init(_ manifest: Manifest, _ algorithm: VerityAlgorithm) throws {
        self.algorithm = algorithm
        for part in [SealedPart.merged, .bootable] { try add(part, manifest.annotations, .manifest) }
        try add(.config, manifest.config.annotations, .configDescriptor)
    }

    private mutating func add(_ part: SealedPart, _ annotations: [String: String], _ location: SealLocation) throws {
        let key = part.annotation(algorithm)
        guard let text = annotations[key] else { return }
        let id = try digest(text, key, location)
        try state(part, id)
        let signatureKey = key + ".sig"
        guard let encoded = annotations[signatureKey] else { return }
        guard let signature = Base64.decode(encoded.utf8) else {
            throw PullError.seal(.invalidBase64(location, annotation: signatureKey))
        }
        try add(signature, of: id, location, signatureKey)
    }

    private func digest(_ text: String, _ key: String, _ location: SealLocation) throws -> ObjectID {
        guard let id = ObjectID(hex: text), id.algorithm == algorithm else {
            throw PullError.seal(.invalidDigest(location, annotation: key, algorithm))
        }
        return id
    }

    private mutating func state(_ part: SealedPart, _ id: ObjectID) throws {
        if let other = digests[part], other != id { throw PullError.seal(.contradiction(part, other, id)) }
        digests[part] = id
    }

    private mutating func add(_ signature: [UInt8], of id: ObjectID, _ location: SealLocation, _ annotation: String?) throws {
        guard !signature.isEmpty, signature.count <= VeritySignature.sizeLimit else {
            throw PullError.seal(
                .signatureSize(location, annotation: annotation, UInt64(signature.count), limit: VeritySignature.sizeLimit))
        }
        signatures[id] = signature
    }

    // MARK: Artifacts

    /// Adds the digests and signatures of an artifact that refers to the image. Artifacts of other types and entries of other algorithms
    /// are ignored.
    mutating func add(
        artifact manifest: Manifest, subject: ContentDigest, readBlob: (Descriptor) throws -> [UInt8]
    ) throws {
        guard manifest.artifactType == Self.artifactType, manifest.subject?.digest == subject else { return }
        for layer in manifest.layers.prefix(Self.limit) where layer.mediaType == Self.signatureType {
            for part in SealedPart.allCases {
                let key = part.annotation(algorithm)
                guard let text = layer.annotations[key] else { continue }
                let location = SealLocation.artifact(ContentDigest.of(manifest.bytes))
                let id = try digest(text, key, location)
                // An image has several layers.
                if part != .layer { try state(part, id) }
                guard layer.size <= VeritySignature.sizeLimit else {
                    throw PullError.seal(.signatureSize(location, annotation: nil, layer.size, limit: VeritySignature.sizeLimit))
                }
                try add(try layer.data ?? readBlob(layer), of: id, location, nil)
            }
        }
    }

    /// Adds the artifacts that the source has for the image. `PullLimits.manifestBytes` limits their manifests.
    mutating func addArtifacts(
        of source: any ImageSource, subject: ContentDigest, _ limits: PullLimits, _ cancellation: Cancellation
    ) throws {
        try cancellation.check()
        for descriptor in try source.referrers(of: subject, artifactType: Self.artifactType).prefix(Self.limit) {
            // A large artifact is an error: a skipped one could state another digest.
            try checkSize(descriptor.size, "artifact \(descriptor.digest)", limits)
            let bytes = try source.manifest(descriptor)
            guard ContentDigest.of(bytes, descriptor.digest.algorithm) == descriptor.digest else {
                throw PullError.blobDigest(descriptor.digest)
            }
            try add(artifact: try Manifest(parsing: bytes), subject: subject) { layer in
                try source.readBlob(layer, limit: VeritySignature.sizeLimit, cancellation)
            }
        }
    }

    /// Adds the artifacts that the store has for the image.
    mutating func addArtifacts(of store: ImageStore, subject: ContentDigest) throws {
        for referrer in try store.referrers(of: subject).prefix(Self.limit) {
            guard let image = try store.image(referrer), image.manifest.artifactType == Self.artifactType else { continue }
            try add(artifact: image.manifest, subject: subject) { layer in
                guard let index = image.manifest.layers.firstIndex(of: layer) else { return [] }
                return try store.openBlob(index, of: image).readAll(limit: VeritySignature.sizeLimit)
            }
        }
    }

    // MARK: Checking

    /// Compares the stated digest of a part, if there is one, with its actual digest.
    ///
    /// - Throws: `PullError.seal` if they differ.
    func check(_ part: SealedPart, _ id: ObjectID?) throws {
        guard let stated = digests[part], let id, stated != id else { return }
        throw PullError.seal(.mismatch(part, stated: stated, actual: id))
    }

    /// Compares the stated digest of a document, if there is one, with the digest of its bytes.
    func check(_ part: SealedPart, _ bytes: [UInt8]) throws {
        guard digests[part] != nil else { return }
        try check(part, bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) })
    }
}
