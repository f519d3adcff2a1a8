public import ComposefsFileTree
public import ComposefsImageStore
import ComposefsRepository

extension ImageStore {
    /// The tree of a stored image in the form that is booted.
    ///
    /// - Throws: `BootTransformError` if the image has no `/boot` or `/sysroot`, or a damaged SELinux policy.
    public func bootTree(of image: StoredImage, _ filtering: XattrFiltering = .allowlistOnly) throws -> FileTree {
        var tree = try tree(of: image, filtering)
        try transformForBoot(&tree) { try repository.readObject($0, limit: BootLimits.policyFileBytes) }
        return tree
    }
}
