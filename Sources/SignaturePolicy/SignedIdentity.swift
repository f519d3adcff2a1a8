/// Which reference a signature must state (`signedIdentity`).
public enum SignedIdentity: Hashable, Sendable {
    /// The image's reference.
    case matchExact
    /// The image's reference if that has a tag; the same repository, and any tag or digest, if it has a digest.
    case matchRepoDigestOrExact
    /// The repository of the image's reference, with any tag or digest, or without.
    case matchRepository
    /// This reference, whatever the image's own is.
    case exactReference(StatedReference)
    /// This repository.
    case exactRepository(StatedReference)
    /// As `matchRepoDigestOrExact`, after the beginning of the image's reference has been replaced.
    case remapIdentity(prefix: String, signedPrefix: String)

    /// Compares the reference that a signature states with that of the image.
    ///
    /// - Parameter image: nil for an image without such a reference; then only the forms that name another one can match.
    func accepts(_ signed: String, for image: StatedReference?) -> Bool {
        guard let signed = StatedReference(parsing: signed) else { return false }
        switch self {
        case .exactReference(let wanted): return !signed.isNameOnly && signed == wanted
        case .exactRepository(let wanted): return signed.name == wanted.name
        default: break
        }
        guard let image else { return false }
        switch self {
        case .matchExact: return !image.isNameOnly && !signed.isNameOnly && signed == image
        case .matchRepository: return signed.name == image.name
        case .matchRepoDigestOrExact: return Self.isRepoDigestOrExact(signed, image)
        case .remapIdentity(let prefix, let signedPrefix):
            guard let image = Self.remap(image, prefix, signedPrefix) else { return false }
            return Self.isRepoDigestOrExact(signed, image)
        case .exactReference, .exactRepository: return false
        }
    }

    private static func isRepoDigestOrExact(_ signed: StatedReference, _ image: StatedReference) -> Bool {
        guard !signed.isNameOnly, !image.isNameOnly else { return false }
        // The digest has been compared with the manifest.
        return image.tag == nil ? signed.name == image.name : signed == image
    }

    /// The reference with another beginning; itself if it does not begin with the prefix, and nil if the result is not a full reference.
    private static func remap(_ image: StatedReference, _ prefix: String, _ signedPrefix: String) -> StatedReference? {
        let name = image.name.utf8
        guard name.elementsEqual(prefix.utf8) || name.starts(with: prefix.utf8 + [UInt8(ascii: "/")]) else { return image }
        let text = signedPrefix + String(decoding: image.text.utf8.dropFirst(prefix.utf8.count), as: UTF8.self)
        guard let remapped = StatedReference(parsing: text), remapped.text == text else { return nil }
        return remapped
    }
}

extension SignedIdentity: CustomStringConvertible {
    /// The name in a policy.
    public var description: String {
        switch self {
        case .matchExact: "matchExact"
        case .matchRepoDigestOrExact: "matchRepoDigestOrExact"
        case .matchRepository: "matchRepository"
        case .exactReference(let reference): "exactReference \(reference)"
        case .exactRepository(let reference): "exactRepository \(reference)"
        case .remapIdentity(let prefix, let signedPrefix): "remapIdentity from \(prefix) to \(signedPrefix)"
        }
    }
}
