package import ComposefsBytes
public import ComposefsFileTree

/// Which extended attributes stay in an image's canonical form.
public enum XattrFiltering: String, Sendable, Hashable, CaseIterable {
    /// Only `security.capability`.
    case allowlistOnly = "allowlist-only"
    /// That and every `user.*`.
    case keepUserXattrs = "keep-user-xattrs"

    package func keeps(_ name: ByteString) -> Bool {
        name == "security.capability" || self == .keepUserXattrs && name.hasPrefix("user.")
    }
}

/// Brings a merged tree into the canonical form of containers, so that the same root file system always gives the same image:
/// the root directory's metadata are those of `/usr` (0755, 0:0, time 0 where there is none), `/run` is empty and has `/usr`'s time,
/// and only allowed extended attributes stay.
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
