import ComposefsBytes
import ComposefsDumpfile
import ComposefsExt4
import ComposefsFileTree
import Glibc

/// Any bytes as an image, with wrong checksums allowed: no trap, no hang. The tree of an accepted image can be written, and gives the same tree again. An
/// image that grows keeps its tree.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    grow(bytes)
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

/// Grows an image in the last group, by one group, and by many, as the checksums of the input allow or without comparing them. An image that was refused is as
/// it was; one that has grown is accepted, and has the tree that it had.
private func grow(_ bytes: [UInt8]) {
    for comparesChecksums in [true, false] {
        // Larger ones have descriptors of many groups, which only take time.
        guard let image = try? Ext4Image(bytes, verifiesChecksums: comparesChecksums), image.byteCount <= 1 << 34 else { continue }
        let before = (try? tree(of: image)).map(dumpfile(of:))
        for more in [1 << 20, 1 << 27, 5 << 30] as [UInt64] {
            let storage = SparseStorage(bytes, byteCount: image.byteCount + more)
            do {
                let size = try growExt4(
                    storage, to: image.byteCount + more, zeroes: UInt64(bytes.count), comparesChecksums: comparesChecksums)
                precondition(size >= image.byteCount && size <= image.byteCount + more, "a size that was not asked for")
                let grown = try Ext4Image(storage, verifiesChecksums: comparesChecksums)
                precondition(grown.byteCount == size, "another size than the one that was told")
                let after = try? grown.tree { .inline(ByteString(try grown.content(of: $0, limit: 1 << 16))) }
                // Without checksums, a file may have the blocks that are changed.
                guard let before, comparesChecksums else { continue }
                precondition(after.map(dumpfile(of:)) == before, "another tree after growing")
            } catch {
                precondition(storage.isUnchanged, "refused after writing: \(error)")
            }
        }
    }
}

/// Bytes, and zeros after them, of which only the pages that are written take memory.
private final class SparseStorage: Ext4Storage {
    private static let pageSize: UInt64 = 4096
    private let start: [UInt8]
    private var pages: [UInt64: [UInt8]] = [:]
    let byteCount: UInt64

    init(_ start: [UInt8], byteCount: UInt64) {
        self.start = start
        self.byteCount = byteCount
    }

    var isUnchanged: Bool { pages.isEmpty }

    private func page(_ number: UInt64) -> [UInt8] {
        if let page = pages[number] { return page }
        let first = Int(min(number * Self.pageSize, UInt64(start.count)))
        let known = start[first..<min(start.count, first + Int(Self.pageSize))]
        return known + [UInt8](repeating: 0, count: Int(Self.pageSize) - known.count)
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        guard offset < byteCount else { return 0 }
        let count = min(buffer.count, Int(clamping: byteCount - offset))
        var done = 0
        while done < count {
            let at = offset + UInt64(done)
            let inside = Int(at % Self.pageSize)
            let part = min(count - done, Int(Self.pageSize) - inside)
            page(at / Self.pageSize)[inside..<(inside + part)].withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + part)]).copyMemory(from: $0)
            }
            done += part
        }
        return count
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws {
        precondition(UInt64(bytes.count) <= byteCount && offset <= byteCount - UInt64(bytes.count), "a write beyond the end")
        var done = 0
        while done < bytes.count {
            let at = offset + UInt64(done)
            let inside = Int(at % Self.pageSize)
            let part = min(bytes.count - done, Int(Self.pageSize) - inside)
            var page = page(at / Self.pageSize)
            page.replaceSubrange(inside..<(inside + part), with: bytes[done..<(done + part)])
            pages[at / Self.pageSize] = page
            done += part
        }
    }

    func sync() throws {}
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
    // With a reserve and without one.
    for (index, tree) in (trees + trees).enumerated() {
        let options = Ext4Options(reservedDescriptorBlocks: index < trees.count ? 0 : 2, hasLostAndFound: false)
        guard let plan = try? Ext4Plan(tree, options), plan.byteCount <= 1 << 16,
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
