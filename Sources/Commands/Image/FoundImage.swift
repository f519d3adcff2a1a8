import ComposefsOCI

/// What IMAGE means where an image made by create-image will do too.
enum FoundImage {
    /// An image with manifest and config, and the tag that stands for it.
    case tagged(ByteString, StoredImage)
    /// An EROFS image with a name below `images/refs`.
    case named(NamedImage)
}

extension ImageStore {
    /// Tags come first, as they do for mount.
    func find(_ text: ByteString) throws -> FoundImage {
        do {
            let (name, image) = try open(text)
            return .tagged(name, image)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let image = try namedImage(text) else { throw error }
            return .named(image)
        }
    }

    /// The tree that IMAGE's EROFS image holds, for looking into it.
    func tree(ofImage text: ByteString) throws -> FileTree {
        switch try find(text) {
        case .tagged(_, let image): try tree(of: image)
        case .named(let image): try erofsImage(image.imageID).tree()
        }
    }
}
