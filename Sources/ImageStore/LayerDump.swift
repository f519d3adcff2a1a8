import ComposefsBytes
import ComposefsDumpfile
import ComposefsFileTree
public import ComposefsHashing
import ComposefsTar

extension ImageStore {
    /// One dumpfile line for every entry of a layer, in the archive's order. Directories have one link, because their entries are not known
    /// yet.
    public func forEachDumpLine(of stream: ObjectID, _ body: ([UInt8]) throws -> Void) throws {
        try forEachEntry(of: stream) { entry, content in
            let metadata = LayerMerger.metadata(entry)
            let path = "/" + ByteString(Array(entry.path.bytes.split(separator: UInt8(ascii: "/")).joined(separator: [UInt8(ascii: "/")])))
            let item: DumpfileItem =
                switch entry.kind {
                case .directory: .directory(links: 1)
                case .hardLink: .hardLink(to: "/" + ByteString(Array(entry.linkTarget.bytes.drop { $0 == UInt8(ascii: "/") })))
                default: .leaf(try LayerMerger.leaf(entry, content.leaf), links: 1)
                }
            try body(dumpfileLine(path: path, metadata: metadata, item))
        }
    }
}

extension StoredContent {
    var leaf: LeafContent {
        switch self {
        case .none: .none
        case .inline(let bytes): .inline(bytes)
        case .external(let id, let size): .external(id, size: size)
        }
    }
}
