package import ComposefsEROFS
package import ComposefsFileTree
public import ComposefsHashing
public import ComposefsOCIModel
import ComposefsRepository

/// The label in the config of a sealed image: the fs-verity digest of the EROFS image, in format V1, of its merged layers in canonical
/// container form. The manifest's digest covers the config, and so the label: a caller that knows the former knows the root file system, and the
/// kernel verifies it as it is read.
public enum SealLabel {
    /// The name of the label.
    public static let key = "containers.composefs.fsverity"

    /// The digest that the label of a config states. Its value is lower-case hexadecimal, as the reference implementation reads it; an earlier
    /// draft of the sealing specification has the algorithm before it, `sha256:` or `sha512:`.
    ///
    /// - Parameter algorithm: the repository's algorithm.
    /// - Throws: `SealFault.noLabel`, `.invalidLabel`, `.otherAlgorithm`.
    public static func id(in config: ImageConfig, _ algorithm: VerityAlgorithm) throws(SealFault) -> ObjectID {
        guard let text = config.runtime.labels[key] else { throw .noLabel }
        let named = VerityAlgorithm.allCases.first { text.hasPrefix($0.name + ":") }
        guard let id = ObjectID(hex: named.map { String(text.dropFirst($0.name.count + 1)) } ?? text),
            named == nil || named == id.algorithm
        else { throw .invalidLabel(text) }
        guard id.algorithm == algorithm else { throw .otherAlgorithm(id.algorithm, repository: algorithm) }
        return id
    }
}

extension ImageStore {
    /// The EROFS image of a sealed image, in the repository's default format or in V1.
    ///
    /// If the image of format V1 is recorded, the label is compared with it; else the layers are merged, and the label is compared with the V1
    /// image of the result, and the recorded one with that of its own format.
    ///
    /// - Throws: `ImageStoreError.seal` if the image has no seal, or its digest is not the actual one; `.noErofsImage` if no image is recorded.
    public func sealedImageID(of image: StoredImage) throws -> ObjectID {
        guard let config = image.config else { throw ImageStoreError.seal(.noLabel) }
        let sealed: ObjectID
        do throws(SealFault) { sealed = try SealLabel.id(in: config, repository.algorithm) } catch { throw ImageStoreError.seal(error) }
        return try sealedID(sealed, .merged, of: image, recorded: { image.imageID($0) }) { try tree(of: image) }
    }

    /// The recorded EROFS image that has the tree of the sealed one.
    ///
    /// - Parameters:
    ///   - recorded: the recorded image of a format.
    ///   - tree: makes the tree of the part from the layers.
    package func sealedID(
        _ sealed: ObjectID, _ part: SealedPart, of image: StoredImage, recorded: (ErofsVersion) -> ObjectID?, tree: () throws -> FileTree
    ) throws -> ObjectID {
        let version = repository.erofsFormats.default
        guard let own = recorded(version) else {
            throw ImageStoreError.noErofsImage(config: image.configDigest, version, bootable: part == .bootable)
        }
        // What is recorded as V1 is the image of V0 if that is the default.
        if version != .v0, recorded(.v1) == sealed { return sealed }
        let tree = try tree()
        let actual = try imageID(of: tree, .v1)
        guard actual == sealed else { throw ImageStoreError.seal(.otherImage(part, sealed: sealed, actual: actual)) }
        // The label says nothing about another format: the record could lead to the image of another tree.
        let rebuilt = version == .v1 ? actual : try imageID(of: tree, version)
        guard rebuilt == own else {
            throw ImageStoreError.damaged(
                stream: StreamName.config(image.configDigest), .otherImage(version, recorded: own, actual: rebuilt))
        }
        return own
    }

    /// The ID of a tree's EROFS image, which is not stored.
    package func imageID(of tree: FileTree, _ version: ErofsVersion) throws -> ObjectID {
        try ErofsPlan(tree, version: version).identifier(repository.algorithm)
    }
}
