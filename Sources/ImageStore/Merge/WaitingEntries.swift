import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsTar

/// Entries of an archive with their contents, in a compact form.
struct WaitingEntries {
    private struct Record: BitwiseCopyable {
        /// Where the texts of the entry begin: path, target, names and values of attributes, content.
        var start: Int
        var headerOffset: UInt64
        var size: UInt64
        var seconds: Int64
        var nanoseconds: UInt32
        var mode: UInt32
        var uid: UInt32
        var gid: UInt32
        var deviceMajor: UInt32
        var deviceMinor: UInt32
        var attributeCount: UInt32
        var kind: TarEntry.Kind
        var content: ContentForm
        /// That of a content in an object.
        var contentSize: UInt64 = 0
    }

    private enum ContentForm: BitwiseCopyable { case none, inline, sha256, sha512 }

    private let memory: any LargeMemory
    private var records: LargeArray<Record>
    /// Each text after its length.
    private var texts: LargeArray<UInt8>

    init(in memory: any LargeMemory) {
        self.memory = memory
        records = LargeArray(in: memory)
        texts = LargeArray(in: memory)
    }

    var isEmpty: Bool { records.isEmpty }
    var indices: Range<Int> { records.indices }

    mutating func removeAll() { if !isEmpty { self = WaitingEntries(in: memory) } }

    mutating func append(_ entry: TarEntry, _ content: LeafContent) {
        let start = texts.count
        append(entry.path.bytes)
        append(entry.linkTarget.bytes)
        for attribute in entry.extendedAttributes {
            append(attribute.name.bytes)
            append(attribute.value.bytes)
        }
        var form = ContentForm.none
        var contentSize: UInt64 = 0
        switch content {
        case .none: break
        case .inline(let bytes):
            form = .inline
            append(bytes.bytes)
        case .external(let id, let size):
            form = id.algorithm == .sha256 ? .sha256 : .sha512
            contentSize = size
            append(id.bytes)
        }
        records.append(
            Record(
                start: start, headerOffset: entry.headerOffset, size: entry.size, seconds: entry.mtime.seconds,
                nanoseconds: entry.mtime.nanoseconds, mode: entry.mode, uid: entry.uid, gid: entry.gid, deviceMajor: entry.deviceMajor,
                deviceMinor: entry.deviceMinor, attributeCount: UInt32(entry.extendedAttributes.count), kind: entry.kind, content: form,
                contentSize: contentSize))
    }

    private mutating func append(_ text: [UInt8]) {
        withUnsafeBytes(of: UInt64(text.count)) { length in length.withMemoryRebound(to: UInt8.self) { texts.append(contentsOf: $0) } }
        text.withUnsafeBufferPointer { texts.append(contentsOf: $0) }
    }

    /// The map of a sparse file is not kept: the content is stored already.
    subscript(index: Int) -> (entry: TarEntry, content: LeafContent) {
        let it = records[index]
        var at = it.start
        func next() -> ByteString {
            let size = MemoryLayout<UInt64>.size
            let count = texts.withElements(at..<(at + size)) { Int(UnsafeRawBufferPointer($0).loadUnaligned(as: UInt64.self)) }
            at += size + count
            return texts.withElements((at - count)..<at) { ByteString(Array($0)) }
        }
        let (path, target) = (next(), next())
        let attributes = (0..<it.attributeCount).map { _ in (name: next(), value: next()) }
        let entry = TarEntry(
            path: path, linkTarget: target, kind: it.kind, mode: it.mode, uid: it.uid, gid: it.gid, mtime: (it.seconds, it.nanoseconds),
            size: it.size, deviceMajor: it.deviceMajor, deviceMinor: it.deviceMinor, extendedAttributes: attributes,
            headerOffset: it.headerOffset)
        switch it.content {
        case .none: return (entry, .none)
        case .inline: return (entry, .inline(next()))
        case .sha256, .sha512:
            let algorithm: VerityAlgorithm = it.content == .sha256 ? .sha256 : .sha512
            guard let id = next().bytes.withUnsafeBytes({ ObjectID(algorithm: algorithm, bytes: $0) }) else {
                preconditionFailure("an identifier of another algorithm")
            }
            return (entry, .external(id, size: it.contentSize))
        }
    }
}

/// The whiteouts of a layer.
struct LayerWhiteouts {
    private struct Record: BitwiseCopyable {
        var start: Int
        var length: UInt32
        var depth: UInt32
        var offset: UInt64
    }

    private let memory: any LargeMemory
    private var records: LargeArray<Record>
    private var paths: LargeArray<UInt8>

    init(in memory: any LargeMemory) {
        self.memory = memory
        records = LargeArray(in: memory)
        paths = LargeArray(in: memory)
    }

    var indices: Range<Int> { records.indices }

    mutating func removeAll() { if !records.isEmpty { self = LayerWhiteouts(in: memory) } }

    /// - Parameter offset: of the entry's header.
    mutating func append(_ path: EntryPath, offset: UInt64) {
        records.append(Record(start: paths.count, length: UInt32(path.path.count), depth: UInt32(path.depth), offset: offset))
        path.path.bytes.withUnsafeBufferPointer { paths.append(contentsOf: $0) }
    }

    /// Sorts by the number of parents.
    mutating func sort() { records.sort { ($0.depth, $0.start) < ($1.depth, $1.start) } }

    subscript(index: Int) -> (path: EntryPath, offset: UInt64) {
        let it = records[index]
        let path = paths.withElements(it.start..<(it.start + Int(it.length))) { ByteString(Array($0)) }
        guard case .success(let parsed) = EntryPath.parse(path) else { preconditionFailure("a path that was refused") }
        return (parsed, it.offset)
    }
}
