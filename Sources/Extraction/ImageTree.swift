public import ComposefsBytes
import ComposefsEROFS
public import ComposefsFileTree
public import ComposefsImageStore
public import ComposefsRepository

/// The tree of an image that is written outside of the repository, or a part of it.
public struct ImageTree: Sendable {
    /// The tree.
    public let tree: FileTree
    /// The repository of the contents.
    public let repository: Repository
    /// Where the part begins: a directory or a single file.
    public let start: FileTree.InodeID

    /// The merged tree of a stored image's layers, with all extended attributes, and with the root's metadata as the layers have it.
    ///
    /// - Throws: `ImageStoreError.isArtifact`; `ImageStoreError.damaged`, `RepositoryError` if the store is damaged.
    public init(of image: StoredImage, in store: ImageStore) throws {
        self.init(try store.mergedTree(of: try store.layers(of: image)), store.repository)
    }

    /// The tree of an image that was made of a directory.
    ///
    /// - Throws: `ErofsError`, `RepositoryError` if the store is damaged.
    public init(of image: NamedImage, in store: ImageStore) throws {
        self.init(try store.erofsImage(image.imageID).tree(), store.repository)
    }

    /// Any tree whose objects are in a repository, for example that of the EROFS image (`ImageStore.tree(of:_:)`).
    ///
    /// - Parameters:
    ///   - repository: the repository of the contents.
    ///   - start: where the part begins.
    public init(_ tree: FileTree, _ repository: Repository, from start: FileTree.InodeID = FileTree.root) {
        self.tree = tree
        self.repository = repository
        self.start = start
    }

    /// The part at a path. Symbolic links on the way are followed inside the image, the last one is not.
    ///
    /// - Throws: `ExtractionError.noSuchPath`.
    public func part(_ path: ByteString) throws(ExtractionError) -> ImageTree {
        guard let inode = tree.resolve(path) else { throw .noSuchPath(path) }
        return ImageTree(tree, repository, from: inode)
    }

    /// Whether the part is a directory.
    public var isDirectory: Bool { tree.isDirectory(start) }

    /// Calls `body` for each entry below the start, a directory before its entries, names in ascending byte order. Not recursive: the image decides
    /// how deep it is.
    ///
    /// - Parameter body: takes the path relative to the start, without a slash at its beginning.
    func forEachEntry(_ body: (_ path: ByteString, FileTree.InodeID) throws -> Void) rethrows {
        guard isDirectory else { return }
        var pending = Array(tree.sortedEntries(of: start).reversed()).map { (path: tree.name(of: $0), inode: tree.inode(of: $0)) }
        while let next = pending.popLast() {
            try body(next.path, next.inode)
            guard tree.isDirectory(next.inode) else { continue }
            for entry in tree.sortedEntries(of: next.inode).reversed() {
                pending.append((next.path + "/" + tree.name(of: entry), tree.inode(of: entry)))
            }
        }
    }
}
