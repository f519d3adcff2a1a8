package import ComposefsBytes
import ComposefsEROFS
package import ComposefsHashing
package import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

/// When a registry is asked for the manifest. Sources on this machine (layouts, archives, containers-storage) are always read.
///
/// The store has an image of a reference if all of its content is stored and
/// - a tag with the reference's full name (`docker.io/library/alpine:latest`, even if `PullOptions.name` is another one) refers to an image
///   for exactly the wanted platform, or
/// - the reference has a digest, and the manifest with that digest is stored.
public enum PullPolicy: String, Sendable, Hashable, Codable, CaseIterable {
    /// Only if the store does not have the image. This is the default; it makes no request for a stored image.
    case missing
    /// Always. If the registry's manifest is the stored one, nothing else is read. If the registry fails before the manifest is known and
    /// the store has an image, that image is used, and the result states the reason (`PullResult.Outcome.unreachable`). After another
    /// manifest is known, every failure is an error.
    case newer
    /// Always, and stored layers are verified: missing and damaged ones are fetched again, the others are not.
    case always
    /// Never. An image that the store does not have is an error.
    case never

    /// Another name of `missing`, which other libraries use.
    public static var ifMissing: PullPolicy { .missing }
}

extension PullResult {
    /// Where the image of a pull comes from.
    public enum Outcome: Hashable, Sendable, Codable {
        /// The source was read.
        case pulled
        /// The store had the image, and no source was asked.
        case present
        /// The registry has the same image as the store.
        case current
        /// The registry failed; this is the stored image.
        case unreachable(reason: String)
    }
}

extension ImageStore {
    /// The digest of the manifest that a tag refers to; nil if there is no such tag.
    package func tagged(_ name: ByteString) throws -> ContentDigest? {
        guard (try? ImageTag.check(name)) != nil else { return nil }
        let reference: Reference?
        do throws(RepositoryError) {
            reference = try repository.streamReference(ImageTag.referencePath(name))
        } catch {
            // A file that is not a link is not a tag, and a pull replaces it.
            guard case .invalidLink = error else { throw error }
            return nil
        }
        guard let reference else { return nil }
        return StreamName.digest(in: reference.entry, after: StreamName.manifestPrefix)
    }

    /// The complete image that an earlier pull of the same reference has stored; nil if there is none.
    ///
    /// - Parameter fits: whether an image for this platform may be used.
    func localImage(of source: any ImageSource, fits: (Platform) -> Bool) throws -> StoredImage? {
        // A reference with the digest of a manifest names that manifest, whatever its platform.
        if let digest = source.pinnedDigest, let image = try whole(digest) { return image }
        for name in source.localNames {
            guard let digest = try tagged(ByteString(name)), let image = try whole(digest) else { continue }
            if let config = image.config, !fits(config.platform) { continue }
            return image
        }
        return nil
    }

    /// A stored image; nil if part of it is missing or damaged, so that a pull repairs it.
    private func whole(_ digest: ContentDigest) throws -> StoredImage? {
        guard let image = try? image(digest), try isWhole(image) else { return nil }
        return image
    }
}
