package import ComposefsBytes
import ComposefsEROFS
package import ComposefsHashing
package import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

/// When a registry is asked. Sources on this machine (layouts, archives, containers-storage) are always read, whatever the policy.
///
/// An image counts as being here where a tag with the reference's full name (`docker.io/library/alpine:latest`, also where the pull shall
/// tag it otherwise) stands for one of the very platform that is wanted, or, for a reference by digest, where the manifest is stored; and
/// all that belongs to it is there.
public enum PullPolicy: String, Sendable, Hashable, CaseIterable {
    /// Only for an image that is not here: one that is costs no request at all. The default.
    case missing
    /// Always for the manifest. Where that is the one that is here, the pull is done. Where the registry does not answer as it should and an
    /// image is here, that one is taken, and the result says why (`PullResult.Outcome.unreachable`). Once another manifest is known, it must
    /// come whole.
    case newer
    /// Always for the manifest, and everything is looked at anew: layers that are here are not fetched again, what is missing or damaged is.
    case always
    /// Never: an image that is not here is an error.
    case never
}

extension PullResult {
    /// How a pull came to its image.
    public enum Outcome: Hashable, Sendable {
        /// The source was read.
        case pulled
        /// The image was here, and nobody was asked.
        case present
        /// The registry was asked, and means the image that was here.
        case current
        /// The registry could not be asked; this is the image that was here.
        case unreachable(reason: String)
    }
}

extension ImageStore {
    /// What a tag stands for; nil where there is no such tag.
    package func tagged(_ name: ByteString) throws -> ContentDigest? {
        guard (try? ImageTag.check(name)) != nil else { return nil }
        let reference: Reference?
        do throws(RepositoryError) {
            reference = try repository.streamReference(ImageTag.referencePath(name))
        } catch {
            // What is no link stands for nothing, and a pull replaces it.
            guard case .invalidLink = error else { throw error }
            return nil
        }
        guard let reference else { return nil }
        return StreamName.digest(in: reference.entry, after: StreamName.manifestPrefix)
    }

    /// The image that an earlier pull of the same reference has left, whole.
    ///
    /// - Parameter fits: whether an image for this platform will do.
    func localImage(of source: any ImageSource, fits: (Platform) -> Bool) throws -> StoredImage? {
        // Who names a manifest by its digest means that one, for whatever platform it is.
        if let digest = source.pinnedDigest, let image = try whole(digest) { return image }
        for name in source.localNames {
            guard let digest = try tagged(ByteString(name)), let image = try whole(digest) else { continue }
            if let config = image.config, !fits(config.platform) { continue }
            return image
        }
        return nil
    }

    /// A stored image, unless something of it is missing or damaged: then another pull puts that right.
    private func whole(_ digest: ContentDigest) throws -> StoredImage? {
        guard let image = try? image(digest), try isWhole(image) else { return nil }
        return image
    }
}
