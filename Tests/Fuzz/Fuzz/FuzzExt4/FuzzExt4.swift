import ComposefsBytes
import ComposefsDumpfile
import ComposefsExt4
import ComposefsFileTree
import Glibc

/// Any bytes as an image, with wrong checksums allowed: no trap, no hang. The tree of an accepted image can be written, and gives the same tree again.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do {
        let image = try Ext4Image(bytes, verifiesChecksums: false)
        let root = try image.root()
        for entry in try image.entries(of: root) {
            guard try image.entry(entry.name, in: root) != nil else { fatalError("a listed name is not found") }
        }
        let found = try tree(of: image)
        for name in ["a", "none"] as [ByteString] { _ = try image.entry(name, in: root) }
        guard let plan = try? Ext4Plan(found, Ext4Options(reservedDescriptorBlocks: 0, hasLostAndFound: false)), plan.byteCount < 1 << 26
        else {
            return 0
        }
        var written = [UInt8](repeating: 0, count: Int(plan.byteCount))
        for part in plan.metadata { written.replaceSubrange(Int(part.offset)..<(Int(part.offset) + part.bytes.count), with: part.bytes) }
        let second = try tree(of: try Ext4Image(written))
        precondition(dumpfile(of: second) == dumpfile(of: found), "another tree after writing")
    } catch {
        _ = "\(error)"
    }
    return 0
}

private func tree(of image: Ext4Image<[UInt8]>) throws -> FileTree {
    try image.tree { .inline(ByteString(try image.content(of: $0, limit: 1 << 16))) }
}

/// If FUZZ_SEEDS names a folder, writes seeds instead of fuzzing: images of the dumpfiles in FUZZ_DUMPFILES, and one with an index.
@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutablePointer<CInt>?, _ arguments: UnsafeMutableRawPointer?) -> CInt {
    guard let folder = getenv("FUZZ_SEEDS"), let list = getenv("FUZZ_DUMPFILES") else { return 0 }
    var trees = String(cString: list).split(separator: ":").compactMap { try? parseDumpfile(contents(of: String($0))) }
    if let indexed = try? indexedTree() { trees.append(indexed) }
    for (index, tree) in trees.enumerated() {
        guard let plan = try? Ext4Plan(tree, Ext4Options(reservedDescriptorBlocks: 0, hasLostAndFound: false)), plan.byteCount <= 1 << 16,
            let file = fopen(String(cString: folder) + "/tree-\(index)", "w")
        else { continue }
        var image = [UInt8](repeating: 0, count: Int(plan.byteCount))
        for part in plan.metadata { image.replaceSubrange(Int(part.offset)..<(Int(part.offset) + part.bytes.count), with: part.bytes) }
        fwrite(image, 1, image.count, file)
        fclose(file)
    }
    exit(0)
}

/// A directory of several blocks whose entries are all one file, and attributes of all places.
private func indexedTree() throws -> FileTree {
    var tree = FileTree(root: Metadata(permissions: 0o755))
    let value = ByteString([UInt8](repeating: 1, count: 5000))
    let list = [
        ExtendedAttribute(name: "user.a", value: "in the inode"), ExtendedAttribute(name: "user.separate", value: value),
        ExtendedAttribute(name: "trusted.block", value: ByteString([UInt8](repeating: 2, count: 500))),
    ]
    let leaf = try tree.addLeaf("a", in: FileTree.root, Metadata(permissions: 0o644, extendedAttributes: list), .inline("x"))
    for index in 0..<60 { try tree.addLink(ByteString(String(repeating: "n", count: 150) + "\(index)"), in: FileTree.root, to: leaf) }
    return tree
}

private func contents(of path: String) -> [UInt8] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    let limit = 1 << 20
    return [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in count = fread(buffer.baseAddress, 1, limit, file) }
}
