import ComposefsBytes
public import ComposefsHashing

/// The parts of an image whose fs-verity digests it can state, with their names in the OCI sealing specification of composefs.
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

/// The location of a stated digest or a signature.
public enum SealLocation: Sendable, Hashable, CustomStringConvertible {
    /// The manifest's annotations.
    case manifest
    /// The annotations of the config's descriptor in the manifest.
    case configDescriptor
    /// An artifact that refers to the manifest: the annotations or the content of one of its layers.
    case artifact(ContentDigest)

    public var description: String {
        switch self {
        case .manifest: "manifest"
        case .configDescriptor: "the config's descriptor"
        case .artifact(let digest): "artifact \(digest)"
        }
    }
}

/// A fault of the fs-verity digests and signatures that an image states for itself.
public enum SealFault: Sendable, Hashable, CustomStringConvertible {
    /// The value of the annotation is not a digest of the repository's algorithm in lower-case hexadecimal.
    case invalidDigest(SealLocation, annotation: String, VerityAlgorithm)
    /// The value of the annotation is not base64.
    case invalidBase64(SealLocation, annotation: String)
    /// The signature is empty or longer than the kernel accepts; in bytes. The annotation is nil for an artifact's layer.
    case signatureSize(SealLocation, annotation: String?, UInt64, limit: Int)
    /// The image states two different digests for one part.
    case contradiction(SealedPart, ObjectID, ObjectID)
    /// The actual digest of the part differs from the stated one.
    case mismatch(SealedPart, stated: ObjectID, actual: ObjectID)
    /// A signature is required, but the repository has no fs-verity.
    case noVerity
    /// A signature is required, but the image has none for its EROFS image.
    case noSignature(ObjectID)
    /// A signature is required, but the kernel does not know its certificate.
    case unknownCertificate(ObjectID)

    public var description: String {
        switch self {
        case .invalidDigest(let location, let annotation, let algorithm):
            "\(location), annotation \(ByteString(annotation)): is not a \(algorithm.name) digest in hexadecimal"
        case .invalidBase64(let location, let annotation): "\(location), annotation \(ByteString(annotation)): is not base64"
        case .signatureSize(let location, let annotation, let size, let limit):
            "\(location)\(annotation.map { ", annotation \(ByteString($0))" } ?? ""): the signature has \(size) bytes; the kernel accepts 1 "
                + "to \(limit)"
        case .contradiction(let part, let one, let other):
            "it states two different fs-verity digests for its \(part.rawValue): \(one) and \(other)"
        case .mismatch(let part, let stated, let actual):
            "the stated fs-verity digest of its \(part.rawValue) is \(stated), but it is \(actual)"
        case .noVerity: "a signature is required, but the repository has no fs-verity"
        case .noSignature(let image): "it has no signature for its EROFS image \(image)"
        case .unknownCertificate: "the certificate of its signature is not in the kernel's .fs-verity keyring"
        }
    }
}
