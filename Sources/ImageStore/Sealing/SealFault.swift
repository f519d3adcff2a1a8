import ComposefsBytes
public import ComposefsHashing
import ComposefsRepository

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
    /// The EROFS image of one layer alone; an image has as many as it has layers.
    case layer

    /// The key of the annotation with the digest.
    package func annotation(_ algorithm: VerityAlgorithm) -> String {
        let format =
            switch self {
            case .manifest, .config: ""
            case .merged, .bootable, .layer: ".erofs.v1"
            }
        return "composefs.\(rawValue)\(format).\(RepositoryMetadata.name(of: algorithm))"
    }
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
public enum SealFault: Error, Sendable, Hashable, CustomStringConvertible {
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
    /// A seal is required, but the config has no label with the digest of the image, or the image is an artifact.
    case noLabel
    /// A seal is required of an EROFS image that was named without an OCI image, so there is no config.
    case noConfig
    /// A seal is required, but the label's value is not a digest in lower-case hexadecimal.
    case invalidLabel(String)
    /// A seal is required, but the label has a digest of another algorithm than the repository's.
    case otherAlgorithm(VerityAlgorithm, repository: VerityAlgorithm)
    /// A seal is required, but the manifest states no digest of the image for booting.
    case noBootDigest(annotation: String)
    /// A seal is required, but the sealed digest of the part is not the actual one.
    case otherImage(SealedPart, sealed: ObjectID, actual: ObjectID)

    /// Whether the image is refused only because a seal is required.
    public var isRefusal: Bool {
        switch self {
        case .noLabel, .noConfig, .invalidLabel, .otherAlgorithm, .noBootDigest, .otherImage: true
        default: false
        }
    }

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
        case .noLabel: "a seal is required, but its config has no label \(SealLabel.key)"
        case .noConfig: "a seal is required, but an EROFS image that is named by itself has no config"
        case .invalidLabel(let text):
            "a seal is required, but the label \(SealLabel.key) of its config is \"\(ByteString(text))\", not an fs-verity digest in hexadecimal"
        case .otherAlgorithm(let sealed, let own):
            "a seal is required, but it is sealed with \(sealed.name), and the repository has \(own.name)"
        case .noBootDigest(let annotation): "a seal is required, but its manifest has no annotation \(annotation)"
        case .otherImage(let part, let sealed, let actual):
            "a seal is required, but the sealed fs-verity digest of its \(part.rawValue) is \(sealed), and the actual one is \(actual)"
        }
    }
}
