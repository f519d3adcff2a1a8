import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// Brings a tree in canonical container form (`transformForContainer`) into the form that is booted: `/boot` and `/sysroot` are empty and
/// have `/usr`'s time, and every file has the label that the image's own SELinux policy gives it, or none without a policy.
///
/// - Parameter content: reads an object whole; called for the policy's files that are not in the tree itself.
/// - Throws: where `/boot` or `/sysroot` is missing, or the policy is damaged. The tree may then be changed in part.
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
    // With the nanoseconds, which the reference leaves alone up to 0.9.2: whatever is done in these directories changes their times, but must
    // not change the image.
    let time = usr.map { tree.modified(of: $0) } ?? Timestamp(seconds: 0)
    for directory in emptied {
        tree.removeChildren(of: directory)
        tree.setModified(of: directory, to: time)
    }
    try labelForSelinux(&tree, content: content)
}

/// Labels every file as the policy in the tree's `/etc/selinux` has it; without a policy, takes all labels away.
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
