import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsSignaturePolicy
import ComposefsTransports

extension LoadedPolicy {
    /// What the policy demands of an image; `SignatureRefusal` if it accepts the image with no signature at all.
    private func demands(of source: any ImageSource) throws -> SignatureDemands {
        try demands(of: source.policyIdentity, named: ByteString(source.canonicalName))
    }

    /// Judges the image before the first request, if it is known which one it is: a short name may stand for several.
    ///
    /// - Throws: `SignatureRefusal`.
    func requireAcceptable(_ source: any ImageSource) throws {
        if source.localNames.count == 1 { _ = try demands(of: source) }
    }

    /// Judges an image by its manifest and its signatures. Nothing of it has been stored, and no layer fetched.
    ///
    /// As in other container tools, the signature must be one of the manifest that is used: that of an index that lists it does not count.
    ///
    /// - Parameter isListed: whether the reference names an index that lists the manifest.
    /// - Throws: `SignatureRefusal`, errors of the source.
    func requireAccepted(
        _ manifest: Manifest, _ digest: ContentDigest, isListed: Bool, of source: any ImageSource, _ limits: PullLimits,
        _ cancellation: Cancellation
    ) throws {
        let demands = try demands(of: source)
        guard !demands.areMet else { return }
        let search = SignatureSearch(demands: demands, manifest: manifest.bytes, digest: digest, cancellation)
        try search.run(source, limits)
        if let refusal = search.demands.refusal(of: digest, isListed: isListed) { throw refusal }
    }
}

extension ImagePull {
    /// Asks the policy, if there is one; see `LoadedPolicy.requireAcceptable`.
    func requireAcceptableSource() throws { try options.signaturePolicy?.requireAcceptable(source) }

    /// Asks the policy, if there is one; see `LoadedPolicy.requireAccepted`.
    func requireAccepted(_ resolved: ResolvedManifest) throws {
        try options.signaturePolicy?.requireAccepted(
            resolved.manifest, resolved.digest, isListed: resolved.index != nil && resolved.index != resolved.digest, of: source,
            options.limits, options.cancellation)
    }
}

/// A search for the signatures of a manifest, until the demands of a policy are met.
///
/// Signatures in the format of cosign are layers of an artifact: the layer is the signed document, and an annotation has the signature. The artifact
/// is found under a tag that is made from the digest of the manifest, or it refers to the manifest.
final class SignatureSearch {
    private(set) var demands: SignatureDemands
    let manifest: [UInt8]
    let digest: ContentDigest
    let cancellation: Cancellation

    /// The artifacts that refer to the image and are looked at.
    private static let artifactLimit = 64
    /// The signatures of one artifact that are looked at.
    private static let signatureLimit = 64
    /// The size of a signed document, in bytes.
    static let payloadLimit = 1 << 20
    /// The types of artifacts with signatures begin so (`application/vnd.dev.cosign.artifact.sig.v1+json`).
    private static let artifactTypes = "application/vnd.dev.cosign."
    /// Another format, in which newer releases of cosign write signatures.
    private static let bundleTypes = "application/vnd.dev.sigstore.bundle."

    init(demands: SignatureDemands, manifest: [UInt8], digest: ContentDigest, _ cancellation: Cancellation) {
        self.demands = demands
        self.manifest = manifest
        self.digest = digest
        self.cancellation = cancellation
    }

    /// Looks at the tag first, which takes one request, and at the referrers only if that does not suffice.
    func run(_ source: any ImageSource, _ limits: PullLimits) throws {
        func payload(_ layer: Descriptor) throws -> [UInt8] {
            try layer.data ?? source.readBlob(layer, limit: Self.payloadLimit, cancellation)
        }
        try cancellation.check()
        if let tagged = try orNote({ try source.taggedSignatures(of: digest) }) ?? nil { try offer(artifact: tagged, read: payload) }
        guard !demands.areMet else { return }
        let listed = try orNote { try source.referrers(of: digest, artifactType: nil) } ?? []
        for bundle in listed.filter({ $0.artifactType?.hasPrefix(Self.bundleTypes) == true }).prefix(1) {
            demands.note(unreadable: "the artifact \(bundle.digest) is a sigstore bundle, which cannot be checked")
        }
        for descriptor in listed.filter({ Self.mayBeSignature($0.artifactType) }).prefix(Self.artifactLimit) {
            guard !demands.areMet else { return }
            try cancellation.check()
            try checkSize(descriptor.size, "artifact \(descriptor.digest)", limits)
            guard let bytes = try orNote({ try descriptor.data ?? source.manifest(descriptor) }) else { continue }
            guard ContentDigest.of(bytes, descriptor.digest.algorithm) == descriptor.digest else {
                throw PullError.blobDigest(descriptor.digest)
            }
            try offer(artifact: bytes, subject: digest, read: payload)
        }
    }

    /// As above for an image of a store.
    func run(_ store: ImageStore) throws {
        for referrer in try store.referrers(of: digest).prefix(Self.artifactLimit) {
            guard !demands.areMet else { return }
            guard let image = try store.image(referrer) else { continue }
            try offer(artifact: image.manifest.bytes, subject: digest) { layer in
                guard let index = image.manifest.layers.firstIndex(of: layer) else { return [] }
                return try store.openBlob(index, of: image).readAll(limit: Self.payloadLimit)
            }
        }
    }

    /// Some registries list no types.
    private static func mayBeSignature(_ artifactType: String?) -> Bool {
        artifactType.map { $0.isEmpty || $0.hasPrefix(artifactTypes) } ?? true
    }

    /// Offers the signatures of an artifact.
    ///
    /// - Parameters:
    ///   - subject: what the artifact must refer to; nil if it need not.
    ///   - read: reads a layer.
    func offer(
        artifact bytes: [UInt8], subject: ContentDigest? = nil, read: (Descriptor) throws -> [UInt8]
    ) throws {
        let artifact: Manifest
        do throws(OCIError) { artifact = try Manifest(parsing: bytes) } catch {
            demands.note(unreadable: "\(error)")
            return
        }
        if let subject, artifact.subject?.digest != subject { return }
        let signatures = artifact.layers.filter { $0.mediaType == ImageSignature.mediaType }
        for layer in signatures.prefix(Self.signatureLimit) where !demands.areMet {
            try cancellation.check()
            guard layer.size <= UInt64(Self.payloadLimit) else {
                demands.note(unreadable: "the signed document \(layer.digest) is larger than \(Self.payloadLimit) bytes")
                continue
            }
            guard let payload = try orNote({ try read(layer) }) else { continue }
            demands.offer(ImageSignature(payload: payload, signature: layer.annotations[ImageSignature.annotation]), for: manifest)
        }
    }

    /// Returns what `body` returns; nil, and a note, if the source does not provide it.
    private func orNote<Value>(_ body: () throws -> Value) throws -> Value? {
        do { return try body() } catch let error as any TransportError where error.concernsOneItem {
            // Cancellation says nothing about the signature.
            try cancellation.check()
            demands.note(unreadable: "\(error)")
            return nil
        }
    }
}
