import ComposefsBytes
public import ComposefsEROFS
package import ComposefsFileTree
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsOCIModel
package import ComposefsRepository

// Images for booting are EROFS images of a container image's tree in the form that is booted. The config stream refers to them by names of
// their own (`ReferenceKey.bootImage`), one for format V2 and one for V0 and V1, for each xattr mode. So garbage collection keeps them as
// long as the image, and the reference implementation finds them.

/// An image for booting that is recorded with its image.
public struct BootImage: Sendable, Hashable, Codable {
    /// The image ID.
    public var id: ObjectID
    public var version: ErofsVersion
    public var filtering: XattrFiltering

    public init(id: ObjectID, version: ErofsVersion, filtering: XattrFiltering) {
        self.id = id
        self.version = version
        self.filtering = filtering
    }
}

/// No image for booting has the ID that was asked for.
public struct NoMatchingBootImage: Error, Sendable, Equatable, CustomStringConvertible {
    public var expected: ObjectID
    /// The number of combinations of xattr mode and format that were tried.
    public var tried: Int

    public var description: String {
        "no image for booting has the ID \(expected.hex): \(tried) combinations of xattr mode and format were tried"
    }
}

/// What is to be recorded for an image.
public enum BootImageRequest: Sendable, Hashable {
    /// The images in all formats of the repository, in this xattr mode.
    case all(XattrFiltering)
    /// The image with this ID, in whatever xattr mode and format has it.
    case matching(ObjectID)
}

extension ImageStore {
    /// Makes the images for booting in all formats of the repository and records them with the image. One that is recorded and intact is not
    /// made again.
    ///
    /// - Returns: the one in the repository's default format.
    /// - Throws: `ImageStoreError.noSuchImage`, `.isArtifact`; `BootTransformError` if the image has no `/boot` or `/sysroot`, or a damaged
    ///   SELinux policy.
    @discardableResult
    public func generateBootImage(_ manifestDigest: ContentDigest, _ filtering: XattrFiltering = .allowlistOnly) throws -> BootImage {
        try recordBootImages(.all(filtering), of: manifestDigest)
    }

    /// Finds the xattr mode and format in which an image for booting has this ID, and records it with the image.
    ///
    /// - Throws: `NoMatchingBootImage` if there is none, and the store is unchanged then; else as `generateBootImage`.
    public func findMatchingBootImage(_ manifestDigest: ContentDigest, _ expected: ObjectID) throws -> BootImage {
        try recordBootImages(.matching(expected), of: manifestDigest)
    }

    /// Removes all references to images for booting, in all xattr modes. The images stay until garbage is collected, and those in use as long
    /// as they are in use.
    ///
    /// - Returns: the number of references that there were.
    /// - Throws: `ImageStoreError.noSuchImage`, `.isArtifact`.
    @discardableResult
    public func removeBootImage(_ manifestDigest: ContentDigest) throws -> Int {
        let image = try container(manifestDigest)
        guard !image.bootImages.isEmpty else { return 0 }
        try record(image, [], Repository.Publication())
        return image.bootImages.count
    }

    /// The recorded image for booting in the repository's default format; nil if there is none.
    ///
    /// - Throws: `ImageStoreError.noSuchImage`, `.isArtifact`.
    public func bootImage(_ manifestDigest: ContentDigest, _ filtering: XattrFiltering = .allowlistOnly) throws -> BootImage? {
        let version = repository.erofsFormats.default
        return try container(manifestDigest).bootImageID(version, filtering).map {
            BootImage(id: $0, version: version, filtering: filtering)
        }
    }

    /// The recorded image for booting of a sealed image, in the repository's default format or in V1.
    ///
    /// - Throws: `ImageStoreError.seal` if the image has no seal, its manifest does not state the image for booting, or one of the two digests
    ///   is not the actual one; `.noErofsImage` if no image for booting is recorded.
    package func sealedBootImageID(of image: StoredImage) throws -> ObjectID {
        _ = try sealedImageID(of: image)
        let key = SealedPart.bootable.annotation(repository.algorithm)
        guard let text = image.manifest.annotations[key] else { throw ImageStoreError.seal(.noBootDigest(annotation: key)) }
        guard let sealed = ObjectID(hex: text), sealed.algorithm == repository.algorithm else {
            throw ImageStoreError.seal(.invalidDigest(.manifest, annotation: key, repository.algorithm))
        }
        return try sealedID(sealed, .bootable, of: image, recorded: { image.bootImageID($0) }) {
            try bootTree({ try tree(of: image, $0) }, .allowlistOnly)
        }
    }

    /// Records what `request` asks for.
    ///
    /// - Returns: the image in the default format, or the one that matches.
    package func recordBootImages(_ request: BootImageRequest, of manifestDigest: ContentDigest) throws -> BootImage {
        let image = try container(manifestDigest)
        if let known = try recorded(request, with: image) { return known }
        let layers = try layers(of: image)
        var publication = Repository.Publication()
        let made = try makeBootImages(request, &publication) { try containerTree(of: layers, $0) }
        try record(image, bootReferences(image.bootImages, made.all), publication)
        return made.chosen
    }

    /// The image that `request` asks for, if it is recorded and intact.
    package func recorded(_ request: BootImageRequest, with image: StoredImage) throws -> BootImage? {
        switch request {
        case .all(let filtering):
            for version in repository.erofsFormats.all {
                guard let id = image.bootImageID(version, filtering), try hasIntactImage(id) else { return nil }
            }
            let version = repository.erofsFormats.default
            return image.bootImageID(version, filtering).map { BootImage(id: $0, version: version, filtering: filtering) }
        case .matching(let expected):
            for filtering in XattrFiltering.allCases {
                for version in Self.searched where try image.bootImageID(version, filtering) == expected && hasIntactImage(expected) {
                    return BootImage(id: expected, version: version, filtering: filtering)
                }
            }
            return nil
        }
    }

    /// Stores images for booting, and adds them to `publication`.
    ///
    /// - Parameter tree: makes the tree in container form, for an xattr mode.
    /// - Returns: all that were made, and the one in the default format, or the one that matches.
    package func makeBootImages(
        _ request: BootImageRequest, _ publication: inout Repository.Publication, tree: (XattrFiltering) throws -> FileTree
    ) throws -> (all: [BootImage], chosen: BootImage) {
        switch request {
        case .all(let filtering):
            let made = try storeImages(of: try bootTree(tree, filtering), &publication).map { version, id in
                BootImage(id: id, version: version, filtering: filtering)
            }
            let version = repository.erofsFormats.default
            guard let chosen = made.first(where: { $0.version == version }) else {
                preconditionFailure("the default format is one of the repository's formats")
            }
            return (made, chosen)
        case .matching(let expected):
            guard expected.algorithm == repository.algorithm else {
                throw RepositoryError.algorithmMismatch(found: repository.algorithm, expected: expected.algorithm)
            }
            var tried = 0
            for filtering in XattrFiltering.allCases {
                let tree = try bootTree(tree, filtering)
                for version in Self.searched {
                    tried += 1
                    let plan = try ErofsPlan(tree, version: version)
                    guard plan.identifier(repository.algorithm) == expected else { continue }
                    publication.image(try storeImage(plan))
                    let found = BootImage(id: expected, version: version, filtering: filtering)
                    return ([found], found)
                }
            }
            throw NoMatchingBootImage(expected: expected, tried: tried)
        }
    }

    /// The order in which formats are tried: that of the reference implementation, and the oldest.
    private static var searched: [ErofsVersion] { [.v1, .v2, .v0] }

    package func bootTree(_ tree: (XattrFiltering) throws -> FileTree, _ filtering: XattrFiltering) throws -> FileTree {
        var tree = try tree(filtering)
        try transformForBoot(&tree) { try repository.readObject($0, limit: BootLimits.policyFileBytes) }
        return tree
    }

    private func container(_ manifestDigest: ContentDigest) throws -> StoredImage {
        guard let image = try image(manifestDigest) else { throw ImageStoreError.noSuchImage(ByteString(manifestDigest.description)) }
        guard image.isContainer else { throw ImageStoreError.isArtifact(manifestDigest) }
        return image
    }

    /// Publishes the image's documents again, with these references to images for booting and all others as they are.
    private func record(_ image: StoredImage, _ boot: [(key: String, id: ObjectID)], _ publication: Repository.Publication) throws {
        try publish(
            manifest: image.manifest, digest: image.manifestDigest, config: image.configBytes,
            layers: try layers(of: image).map { ($0.diffID, $0.stream) }, images: image.imageIDs, boot: boot, tag: nil,
            source: SourceHint.text(of: image, in: repository), publication)
    }

    /// References to images for booting, with `made` in place of those of the same xattr mode and format. One reference serves V0 and V1: that
    /// of the default format, if it is one of them.
    package func bootReferences(_ recorded: [(key: String, id: ObjectID)], _ made: [BootImage]) -> [(key: String, id: ObjectID)] {
        var references = recorded
        let ordered =
            made.filter { $0.version != repository.erofsFormats.default } + made.filter { $0.version == repository.erofsFormats.default }
        for new in ordered {
            let key = ReferenceKey.bootImage(new.version, new.filtering)
            references.removeAll { $0.key == key }
            references.append((key, new.id))
        }
        return references
    }
}
