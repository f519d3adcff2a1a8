public import ComposefsBytes
public import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem

/// As above for the tree of a directory on disk, as `hashDirectory` returns it: the policy's files are read from the directory.
///
/// - Parameter directory: the directory that was read. A file that has changed since is an error.
public func transformForBoot(_ tree: inout FileTree, contentsOf directory: ByteString) throws(BootTransformError) {
    let contents = DirectoryContents(tree, directory)
    try transformForBoot(&tree) { try contents.read($0) }
}

/// Where a directory holds the contents of its SELinux policy.
private struct DirectoryContents {
    private let directory: ByteString
    private var paths: [ObjectID: ByteString] = [:]

    init(_ tree: FileTree, _ directory: ByteString) {
        self.directory = directory
        guard let top = tree.lookup(path: "/etc/selinux"), tree.isDirectory(top) else { return }
        // A list instead of recursion: the directory decides how deep it is.
        var pending = [(path: ByteString("etc/selinux"), inode: top)]
        while let next = pending.popLast() {
            for entry in tree.entries(of: next.inode) {
                let inode = tree.inode(of: entry)
                let path = next.path + "/" + tree.name(of: entry)
                if tree.isDirectory(inode) {
                    pending.append((path, inode))
                } else if case .external(let id, _)? = tree.content(of: inode) {
                    paths[id] = path
                }
            }
        }
    }

    func read(_ id: ObjectID) throws -> [UInt8] {
        guard let path = paths[id] else { throw BootTransformError.policy(path: "/etc/selinux", .noFile(id)) }
        // Name by name, not by path: the directory may contain links that lead out of it by now.
        var at = try FileDescriptor.open(directory, [.readOnly, .directory])
        let names = path.bytes.split(separator: slash).map { ByteString($0) }
        for name in names.dropLast() { at = try at.open(at: name, [.readOnly, .directory, .noFollow]) }
        let file = try at.open(at: names.last ?? "", [.readOnly, .noFollow, .nonBlocking])
        let bytes = try file.readAll(limit: BootLimits.policyFileBytes)
        guard bytes.withUnsafeBytes({ VerityHasher.objectID(of: $0, id.algorithm) }) == id else {
            throw BootTransformError.policy(path: "/" + path, .changed)
        }
        return bytes
    }
}
