internal import ComposefsHashing
internal import ComposefsJSON

/// The signed document of a sigstore signature: the digest of a manifest, and the reference that its author gives it. cosign calls the format
/// "simple signing".
struct SignatureClaim: Hashable, Sendable {
    /// `critical.type`
    static let type = "cosign container image signature"

    var digest: ContentDigest
    var reference: String

    /// Parses a document whose signature is good. Members that are unknown are errors except below `optional`, which may be null.
    init(parsing bytes: [UInt8]) throws(ImageSignatureFault) {
        guard let value = try? JSONValue.parse(bytes), let top = Self.object(value, ["critical", "optional"]) else { throw .malformedClaim }
        guard let optional = top["optional"], optional.isNull || Self.isOptional(optional),
            let critical = Self.object(top["critical"], ["type", "image", "identity"]),
            let image = Self.object(critical["image"], ["docker-manifest-digest"]),
            let identity = Self.object(critical["identity"], ["docker-reference"]),
            critical["type"]?.string == Self.type, let reference = identity["docker-reference"]?.string,
            let digest = image["docker-manifest-digest"]?.string.flatMap({ ContentDigest($0) })
        else { throw .malformedClaim }
        self.digest = digest
        self.reference = reference
    }

    /// An object with exactly these members.
    private static func object(_ value: JSONValue?, _ names: [String]) -> JSONObject? {
        guard let object = value?.object, object.count == names.count, names.allSatisfy({ object[$0] != nil }) else { return nil }
        return object
    }

    /// Creator and time of the signature have a type; other members are free.
    private static func isOptional(_ value: JSONValue) -> Bool {
        guard let object = value.object else { return false }
        if let creator = object["creator"], creator.string == nil { return false }
        if let time = object["timestamp"] {
            guard let number = time.double, number == number.rounded(.towardZero) else { return false }
        }
        return true
    }
}

/// A signature that was found for an image and is still to be checked.
public struct ImageSignature: Hashable, Sendable {
    /// The media type of the signed document.
    public static let mediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
    /// The annotation with the signature in base64.
    public static let annotation = "dev.cosignproject.cosign/signature"

    /// The signed document.
    public var payload: [UInt8]
    /// The signature in base64; nil if the annotation is missing.
    public var signature: String?

    public init(payload: [UInt8], signature: String?) {
        self.payload = payload
        self.signature = signature
    }
}

/// Why a signature was not accepted.
public enum ImageSignatureFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// It could not be read, and why.
    case unreadable(String)
    case noSignature
    case notBase64
    /// No key of the policy made it.
    case otherKey
    case malformedClaim
    /// It is for another manifest.
    case otherDigest(String)
    /// It states a reference that the policy does not accept for the image.
    case otherReference(String, SignedIdentity)

    public var description: String {
        switch self {
        case .unreadable(let reason): reason
        case .noSignature: "it lacks the annotation \(ImageSignature.annotation)"
        case .notBase64: "its annotation \(ImageSignature.annotation) is not base64"
        case .otherKey: "none of the policy's keys made it"
        case .malformedClaim: "what it signs is not a claim about an image"
        case .otherDigest(let digest): "it is for the manifest \(digest)"
        case .otherReference(let reference, let identity): "it is for \(reference), which \(identity) does not accept"
        }
    }
}
