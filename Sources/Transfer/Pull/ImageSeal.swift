import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

/// What an image says of the fs-verity digests of its own documents and of its EROFS images, and the kernel's signatures of those, as the
/// OCI sealing specification of composefs has it.
///
/// Both stand in annotations: of the manifest for `merged` and `merged.bootable`, of the config's descriptor for `config`. Or they come in
/// artifacts that refer to the manifest, each layer of which is a signature in DER and has an annotation that says of what.
/// `composefs.ROLE.erofs.v1.fsverity-ALGORITHM-12` holds the digest of an EROFS image in hex, `composefs.ROLE.fsverity-ALGORITHM-12` that of
/// a document as it is; with `.sig` behind it the signature in base64.
struct ImageSeal {
    static let artifactType = "application/vnd.composefs.metadata.v1"
    static let signatureType = "application/vnd.composefs.signature.v1+pkcs7"
    /// Artifacts that are read for one image, and layers of each.
    private static let limit = 16

    enum Role: String, CaseIterable {
        case manifest, config, merged
        case bootable = "merged.bootable"

        /// The annotation that holds the digest.
        func key(_ algorithm: VerityAlgorithm) -> String {
            let isImage = self == .merged || self == .bootable
            return "composefs.\(rawValue)\(isImage ? ".erofs.v1" : "").\(RepositoryMetadata.name(of: algorithm))"
        }
    }

    /// What the image claims.
    private(set) var digests: [Role: ObjectID] = [:]
    private(set) var signatures: [ObjectID: [UInt8]] = [:]
    let algorithm: VerityAlgorithm

    init(_ manifest: Manifest, _ algorithm: VerityAlgorithm) throws {
        self.algorithm = algorithm
        for role in [Role.merged, .bootable] { try add(role, manifest.annotations, "manifest") }
        try add(.config, manifest.config.annotations, "the config's descriptor")
    }

    private mutating func add(_ role: Role, _ annotations: [String: String], _ place: String) throws {
        let key = role.key(algorithm)
        guard let text = annotations[key] else { return }
        let id = try digest(text, key, place)
        try claim(role, id)
        guard let encoded = annotations[key + ".sig"] else { return }
        guard let signature = Base64.decode(encoded.utf8) else {
            throw PullError.seal("\(place), annotation \(key).sig: is no base64")
        }
        try add(signature, of: id, "\(place), annotation \(key).sig")
    }

    private func digest(_ text: String, _ key: String, _ place: String) throws -> ObjectID {
        guard let id = ObjectID(hex: text), id.algorithm == algorithm else {
            throw PullError.seal("\(place), annotation \(key): is no \(algorithm.name) digest in hex")
        }
        return id
    }

    private mutating func claim(_ role: Role, _ id: ObjectID) throws {
        if let other = digests[role], other != id {
            throw PullError.seal("it claims two different digests of its \(role.rawValue): \(other) and \(id)")
        }
        digests[role] = id
    }

    private mutating func add(_ signature: [UInt8], of id: ObjectID, _ place: String) throws {
        guard !signature.isEmpty, signature.count <= VeritySignature.sizeLimit else {
            throw PullError.seal("\(place): has \(signature.count) bytes; the kernel takes 1 to \(VeritySignature.sizeLimit)")
        }
        signatures[id] = signature
    }

    // MARK: Artifacts

    /// Adds what an artifact holds that refers to the image. Those of other types, and entries of other algorithms, say nothing.
    mutating func add(
        artifact manifest: Manifest, subject: ContentDigest, readBlob: (Descriptor) throws -> [UInt8]
    ) throws {
        guard manifest.artifactType == Self.artifactType, manifest.subject?.digest == subject else { return }
        for layer in manifest.layers.prefix(Self.limit) where layer.mediaType == Self.signatureType {
            for role in Role.allCases {
                let key = role.key(algorithm)
                guard let text = layer.annotations[key] else { continue }
                let place = "artifact \(ContentDigest.of(manifest.bytes))"
                let id = try digest(text, key, place)
                try claim(role, id)
                guard layer.size <= VeritySignature.sizeLimit else {
                    throw PullError.seal("\(place): a signature of \(layer.size) bytes; the kernel takes \(VeritySignature.sizeLimit)")
                }
                try add(try layer.data ?? readBlob(layer), of: id, place)
            }
        }
    }

    /// Adds what the source has of artifacts for the image. Their manifests are as large as manifests may be: `PullLimits.manifestBytes`.
    mutating func addArtifacts(of source: any ImageSource, subject: ContentDigest, _ limits: PullLimits) throws {
        for descriptor in try source.referrers(of: subject, artifactType: Self.artifactType).prefix(Self.limit) {
            // One that is left out in silence could be the one that says that the image is not the right one.
            try checkSize(descriptor.size, "artifact \(descriptor.digest)", limits)
            let bytes = try source.manifest(descriptor)
            guard ContentDigest.of(bytes, descriptor.digest.algorithm) == descriptor.digest else {
                throw PullError.blobDigest(descriptor.digest)
            }
            try add(artifact: try Manifest(parsing: bytes), subject: subject) { layer in
                try source.readBlob(layer, limit: VeritySignature.sizeLimit)
            }
        }
    }

    /// Adds what the store has of artifacts for the image.
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

    /// Compares a claim, where there is one, with what the content is.
    func check(_ role: Role, _ id: ObjectID?) throws {
        guard let claimed = digests[role], let id, claimed != id else { return }
        throw PullError.seal("it claims that the fs-verity digest of its \(role.rawValue) is \(claimed), but it is \(id)")
    }

    func check(_ role: Role, _ bytes: [UInt8]) throws {
        guard digests[role] != nil else { return }
        try check(role, bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) })
    }
}
