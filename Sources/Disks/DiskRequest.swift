public import ComposefsBytes

/// A step in the making of a disk.
public enum DiskStep: Sendable, Hashable {
    /// The image of a layer is being written: its index from the lowest layer on, and its size in bytes. Not for kinds without such images.
    case layer(Int, byteCount: UInt64)
    /// The image of a layer is written, or was in the store already.
    case layerWritten(Int)
    /// All layers are merged; what joins them is being written: the metadata of the merged tree with a descriptor, or a file with everything.
    case joining(DiskKind)
}

/// What is made of an image, and how.
public struct DiskRequest: Sendable, Hashable, Codable {
    public var kind: DiskKind
    public var tree: DiskTree
    /// The size of a flat disk in bytes. It then has a journal, and can be mounted for writing. Without a size it has no room for anything else, and
    /// no journal.
    public var size: UInt64?

    public init(_ kind: DiskKind, tree: DiskTree = .oci, size: UInt64? = nil) {
        self.kind = kind
        self.tree = tree
        self.size = size
    }

    /// The version of what this program writes: another one gives other bytes for the same layers.
    static let formatVersion = 1

    /// The text that identifies the request in a store: `KIND-VERSION-TREE`, and `-SIZE` if there is a size.
    public var key: ByteString {
        ByteString("\(kind.rawValue)-\(Self.formatVersion)-\(tree.rawValue)" + (size.map { "-\($0)" } ?? ""))
    }

    /// The request of a key; nil if it is none, or of another version.
    public init?(key: ByteString) {
        let parts = (key.utf8Text ?? "").split(separator: "-", omittingEmptySubsequences: false)
        guard (3...4).contains(parts.count), let kind = DiskKind(rawValue: String(parts[0])),
            let tree = DiskTree(rawValue: String(parts[2]))
        else { return nil }
        self.init(kind, tree: tree)
        if parts.count == 4 {
            guard let size = UInt64(parts[3]) else { return nil }
            self.size = size
        }
        guard self.key == key, (try? check()) != nil else { return nil }
    }

    /// - Throws: `DiskError.layersHaveOwnTrees`, `.sizeNotApplicable`.
    func check() throws(DiskError) {
        guard kind != .layered || tree == .oci else { throw .layersHaveOwnTrees }
        guard size == nil || kind == .flat else { throw .sizeNotApplicable(kind) }
    }
}
