import ComposefsBytes
public import ComposefsHashing

/// What an image can state the fs-verity digest of, as the OCI sealing specification of composefs names it.
public enum SealedPart: String, Sendable, CaseIterable {
    /// The manifest, byte for byte.
    case manifest
    /// The config, byte for byte.
    case config
    /// The EROFS image of the merged layers.
    case merged
    /// The EROFS image for booting.
    case bootable = "merged.bootable"
}

/// Where a stated digest or a signature stands.
public enum SealLocation: Sendable, Hashable, CustomStringConvertible {
    /// The manifest's annotations.
    case manifest
    /// The annotations of the config's descriptor in the manifest.
    case configDescriptor
    /// A layer's annotations, or content, in an artifact that refers to the manifest.
    case artifact(ContentDigest)

    public var description: String {
        switch self {
        case .manifest: "manifest"
        case .configDescriptor: "the config's descriptor"
        case .artifact(let digest): "artifact \(digest)"
        }
    }
}

/// What is wrong with the fs-verity digests and signatures that an image states of itself.
public enum SealFault: Sendable, Hashable, CustomStringConvertible {
    /// The value of the annotation is not a digest of the repository's algorithm in lower-case hexadecimal.
    case invalidDigest(SealLocation, annotation: String, VerityAlgorithm)
    /// The value of the annotation is not base64.
    case invalidBase64(SealLocation, annotation: String)
    /// The signature is empty or longer than the kernel accepts; sizes in bytes. The annotation is nil for an artifact's layer.
    case signatureSize(SealLocation, annotation: String?, UInt64, limit: Int)
    /// Two places state different digests of the same part.
    case contradiction(SealedPart, ObjectID, ObjectID)
    /// The part has another digest than the one that is stated.
    case mismatch(SealedPart, stated: ObjectID, actual: ObjectID)
    /// A signature is required, but the repository has no fs-verity.
    case noVerity
    /// A signature is required, but the image has none of its EROFS image.
    case noSignature(ObjectID)
    /// A signature is required, but the kernel does not know the certificate that belongs to it.
    case unknownCertificate(ObjectID)

    public var description: String {
        switch self {
        case .invalidDigest(let location, let annotation, let algorithm):
            "\(location), annotation \(ByteString(annotation)): is no \(algorithm.name) digest in hex"
        case .invalidBase64(let location, let annotation): "\(location), annotation \(ByteString(annotation)): is no base64"
        case .signatureSize(let location, let annotation, let size, let limit):
            "\(location)\(annotation.map { ", annotation \(ByteString($0))" } ?? ""): the signature has \(size) bytes; the kernel takes 1 to "
                + "\(limit)"
        case .contradiction(let part, let one, let other):
            "two different fs-verity digests are stated for its \(part.rawValue): \(one) and \(other)"
        case .mismatch(let part, let stated, let actual):
            "the stated fs-verity digest of its \(part.rawValue) is \(stated), but it is \(actual)"
        case .noVerity: "a signature is required, but the repository has no fs-verity"
        case .noSignature(let image): "it has no signature of its EROFS image \(image)"
        case .unknownCertificate: "the certificate of its signature is not in the kernel's .fs-verity keyring"
        }
    }
}
