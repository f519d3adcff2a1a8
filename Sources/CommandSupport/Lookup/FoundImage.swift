package import ComposefsOCI

/// The image that IMAGE refers to, for commands that accept images of create-image, too.
package enum FoundImage {
    /// An image with manifest and config, and the tag that refers to it.
    case tagged(ByteString, StoredImage)
    /// An EROFS image with a name below `images/refs`.
    case named(NamedImage)
}

extension ImageStore {
    /// Tags take precedence, as they do for mount.
    package func find(_ text: ByteString) throws -> FoundImage {
        do {
            let (name, image) = try open(text)
            return .tagged(name, image)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let image = try namedImage(text) else { throw error }
            return .named(image)
        }
    }

    /// The tree of IMAGE's EROFS image.
    package func tree(ofImage text: ByteString) throws -> FileTree {
        switch try find(text) {
        case .tagged(_, let image): try tree(of: image)
        case .named(let image): try erofsImage(image.imageID).tree()
        }
    }
}
