package import ComposefsBytes
public import ComposefsFileTree

/// The extended attributes that an image's canonical form keeps.
public enum XattrFiltering: String, Sendable, Hashable, Codable, CaseIterable {
    /// Only `security.capability`.
    case allowlistOnly = "allowlist-only"
    /// `security.capability` and every `user.*`.
    case keepUserXattrs = "keep-user-xattrs"

    package func keeps(_ name: ByteString) -> Bool {
        name == "security.capability" || self == .keepUserXattrs && name.hasPrefix("user.")
    }
}

/// Transforms a merged tree to the canonical form of containers, so that the same root file system always results in the same image: the
/// root directory has the metadata of `/usr` (0755, 0:0, time 0 if there is none), `/run` is empty and has the time of `/usr`, and only
/// allowed extended attributes are kept.
public func transformForContainer(_ tree: inout FileTree, _ filtering: XattrFiltering = .allowlistOnly) {
    var metadata = LayerMerger.implicit
    if let usr = tree.lookup("usr", in: FileTree.root), tree.isDirectory(usr) { metadata = tree.metadata(of: usr) }
    tree.setMetadata(of: FileTree.root, to: metadata)
    if let run = tree.lookup("run", in: FileTree.root), tree.isDirectory(run) {
        tree.removeChildren(of: run)
        tree.setModified(of: run, to: metadata.modified)
    }
    tree.mapExtendedAttributes { $0.filter { filtering.keeps($0.name) } }
}
