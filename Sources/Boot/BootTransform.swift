import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// Transforms a tree from canonical container form (`transformForContainer`) to the form that is booted: `/boot` and `/sysroot` are empty
/// and have the time of `/usr`, and every file has the label that the image's own SELinux policy assigns, or no label without a policy.
///
/// - Parameter content: reads a whole object; called for the policy's files whose content is not in the tree.
/// - Throws: if `/boot` or `/sysroot` is missing or the policy is damaged. The tree may then be partly changed.
public func transformForBoot(
    _ tree: inout FileTree, content: (ObjectID) throws -> [UInt8]
) throws(BootTransformError) {
    var emptied: [FileTree.InodeID] = []
    for (name, path) in [("boot", "/boot"), ("sysroot", "/sysroot")] as [(ByteString, ByteString)] {
        guard let directory = tree.lookup(name, in: FileTree.root) else { throw .missingDirectory(path) }
        guard tree.isDirectory(directory) else { throw .notADirectory(path) }
        emptied.append(directory)
    }
    let usr = tree.lookup("usr", in: FileTree.root)
    // Nanoseconds, too, which composefs-rs up to 0.9.2 leaves unchanged: any change in these directories changes their times, but must not
    // change the image.
    let time = usr.map { tree.modified(of: $0) } ?? Timestamp(seconds: 0)
    for directory in emptied {
        tree.removeChildren(of: directory)
        tree.setModified(of: directory, to: time)
    }
    try labelForSelinux(&tree, content: content)
}

/// Labels every file by the policy in the tree's `/etc/selinux`. Without a policy all labels are removed.
///
/// - Returns: whether there was a policy.
@discardableResult
func labelForSelinux(
    _ tree: inout FileTree, content: (ObjectID) throws -> [UInt8]
) throws(BootTransformError) -> Bool {
    guard let policy = try SelinuxPolicy(of: tree, content: content) else {
        tree.mapExtendedAttributes { $0.filter { $0.name != selinuxAttribute } }
        return false
    }
    var labelling = SelinuxLabelling(policy, tree)
    try labelling.run(&tree)
    return true
}

let selinuxAttribute: ByteString = "security.selinux"
