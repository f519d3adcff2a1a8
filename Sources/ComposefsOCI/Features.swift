public import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
public import ComposefsMounting

/// Determines what this host supports for a repository in a directory. Each feature is tested by using it; nothing remains afterwards.
///
/// - Parameter path: an existing directory.
/// - Throws: `SystemError` if the path is not a directory or cannot be opened.
public func probeFeatures(at path: ByteString) throws -> HostFeatures { try probeFeatures(at: path, try featureSample()) }

/// An image with two files, and their objects, one of which has other content than the image states.
private func featureSample() throws -> FeatureSample {
    var tree = FileTree(root: Metadata(permissions: 0o755))
    func add(_ name: ByteString, _ letter: UInt8, actually other: UInt8) throws -> (name: ByteString, object: ByteString, content: [UInt8])
    {
        let content = [UInt8](repeating: letter, count: 5000)
        let id = content.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        try tree.addLeaf(name, in: FileTree.root, Metadata(permissions: 0o644), .external(id, size: UInt64(content.count)))
        return (name, ByteString(id.objectPath), [UInt8](repeating: other, count: content.count))
    }
    let good = try add("good", UInt8(ascii: "g"), actually: UInt8(ascii: "g"))
    let bad = try add("bad", UInt8(ascii: "b"), actually: UInt8(ascii: "x"))
    return FeatureSample(
        image: try writeErofs(tree, version: .v1), good: good, bad: bad, algorithm: VerityAlgorithm.sha256.rawValue)
}
