public import ComposefsBytes
internal import ComposefsCompression
public import ComposefsHashing

/// Reads a split stream: its references at once, its content chunk by chunk.
///
/// Both header layouts are supported. Every field is checked before it is used, and memory use is bounded by the size of the file: sections
/// must lie inside the file and must not overlap, and references must lie inside their tables.
public struct SplitStreamReader<Source: RandomAccessBytes>: ~Copyable {
    public enum Chunk {
        /// A part of inline content, at most 128 KiB, valid until the next call of `next`. Parts do not show the boundaries of inline
        /// chunks.
        case inline(UnsafeRawBufferPointer)
        /// The content of this object follows. The format does not record its size.
        case external(ObjectID)
    }

    private static var inputSize: Int { 64 << 10 }
    private static var windowSize: Int { 128 << 10 }

    public let source: Source
    public let algorithm: VerityAlgorithm
    public let contentType: UInt64
    /// The size of the whole content, inline and external, according to the header, in bytes.
    public let totalSize: UInt64
    /// The external objects, each once, in the order of their first use.
    public let objectReferences: ObjectIDList
    /// The named references in the order of the file, which is ascending if the writer follows the format. Of equal names, the last one
    /// counts.
    public let namedReferences: [NamedReference]

    /// The number of bytes of inline content that `next` has returned. Once it returns nil, all external content together must have
    /// `totalSize - inlineSize` bytes. The reader cannot check this, because the format does not record the sizes of objects.
    public private(set) var inlineSize: UInt64 = 0

    private var decoder: Decompressor
    private var body: Range<UInt64>
    private let input: UnsafeMutableRawBufferPointer
    private var pending = UnsafeRawBufferPointer(start: nil, count: 0)
    private let window: UnsafeMutableRawBufferPointer
    /// The start of the decompressed bytes in the window that `next` has not returned yet.
    private var start = 0
    private var end = 0
    private var chunkLeft: UInt64 = 0
    private var hasExternal = false
    private var isDone = false

    /// Reads and checks everything except the body.
    ///
    /// - Parameters:
    ///   - algorithm: The repository's algorithm. A stream for another algorithm is refused.
    ///   - contentType: If not nil, a stream with another content type is refused.
    public init(_ source: Source, algorithm: VerityAlgorithm, contentType: UInt64? = nil) throws(SplitStreamError) {
        try self.init(source, algorithm: algorithm, contentType: contentType, in: HeapMemory.shared)
    }

    /// The same.
    ///
    /// - Parameter memory: where the references are.
    package init(
        _ source: Source, algorithm: VerityAlgorithm, contentType: UInt64?, in memory: any LargeMemory
    ) throws(SplitStreamError) {
        let sections = try SplitStreamSections(source, algorithm)
        if let contentType, contentType != sections.contentType {
            throw SplitStreamError(.contentType(found: sections.contentType, expected: contentType))
        }
        let streams = try sections.digests(sections.streamReferences, "stream reference", source, algorithm, in: memory)
        let objects = try sections.digests(sections.objectReferences, "object reference", source, algorithm, in: memory)
        let names = try sections.names(source, streams)
        objectReferences = objects
        namedReferences = names
        self.source = source
        self.algorithm = algorithm
        self.contentType = sections.contentType
        totalSize = sections.totalSize
        body = sections.body
        decoder = Decompressor(.zstd)
        input = .allocate(byteCount: Self.inputSize, alignment: 16)
        window = .allocate(byteCount: Self.windowSize, alignment: 16)
    }

    deinit {
        input.deallocate()
        window.deallocate()
    }

    /// The object with the given name. Names are compared byte by byte.
    public func namedReference(_ name: String) -> ObjectID? {
        namedReferences.last { $0.name.utf8.elementsEqual(name.utf8) }?.id
    }

    /// Returns the next part of the content, or nil at the end.
    public mutating func next() throws(SplitStreamError) -> Chunk? {
        if isDone { return nil }
        if chunkLeft == 0 {
            guard try fill(atLeast: 8) else {
                try checkEnd()
                return nil
            }
            let instruction = Int64(littleEndian: window.loadUnaligned(fromByteOffset: start, as: Int64.self))
            start += 8
            guard instruction < 0 else {
                guard let index = Int(exactly: instruction), index < objectReferences.count else {
                    throw SplitStreamError(.objectIndex(instruction, count: objectReferences.count))
                }
                hasExternal = true
                return .external(objectReferences[index])
            }
            guard instruction.magnitude <= totalSize - inlineSize else { throw SplitStreamError(.size(declared: totalSize)) }
            chunkLeft = instruction.magnitude
        }
        guard try fill(atLeast: 1) else {
            try checkFrames()
            throw SplitStreamError(.bodyCut)
        }
        let count = min(chunkLeft, UInt64(end - start))
        let chunk = UnsafeRawBufferPointer(rebasing: window[start..<(start + Int(count))])
        start += Int(count)
        chunkLeft -= count
        inlineSize += count
        return .inline(chunk)
    }

    private mutating func checkEnd() throws(SplitStreamError) {
        try checkFrames()
        guard start == end else { throw SplitStreamError(.bodyCut) }
        guard hasExternal || inlineSize == totalSize else { throw SplitStreamError(.size(declared: totalSize)) }
        isDone = true
    }

    private mutating func checkFrames() throws(SplitStreamError) {
        do { try decoder.finish() } catch { throw SplitStreamError(.unpack(error.description)) }
    }

    /// Decompresses until the window holds `count` bytes. Returns false if the body ends before that.
    private mutating func fill(atLeast count: Int) throws(SplitStreamError) -> Bool {
        guard end - start < count else { return true }
        // At most seven bytes remain: the beginning of an instruction.
        for index in 0..<(end - start) { window[index] = window[start + index] }
        end -= start
        start = 0
        while end < count {
            if pending.isEmpty, !body.isEmpty {
                let wanted = Int(min(UInt64(input.count), body.upperBound - body.lowerBound))
                let chunk = UnsafeMutableRawBufferPointer(rebasing: input[..<wanted])
                try source.fill(chunk, at: body.lowerBound)
                body = (body.lowerBound + UInt64(wanted))..<body.upperBound
                pending = UnsafeRawBufferPointer(chunk)
            }
            let made: Int
            do {
                made = try decoder.decompress(&pending, into: UnsafeMutableRawBufferPointer(rebasing: window[end...]))
            } catch {
                throw SplitStreamError(.unpack(error.description))
            }
            end += made
            if made == 0, pending.isEmpty, body.isEmpty { return false }
        }
        return true
    }
}

extension RandomAccessBytes {
    /// Fills `buffer`; throws if the source has fewer bytes.
    func fill(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SplitStreamError) {
        var done = 0
        while done < buffer.count {
            let count: Int
            do {
                count = try read(at: offset + UInt64(done), into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]))
            } catch {
                throw SplitStreamError(.unreadable("\(error)"))
            }
            guard count > 0 else { throw SplitStreamError(.truncated) }
            done += count
        }
    }

    /// Reads `range`, which is known to lie in the file. Memory grows with the bytes read, not with the claimed range.
    func bytes(_ range: Range<UInt64>) throws(SplitStreamError) -> [UInt8] {
        var result: [UInt8] = []
        var at = range.lowerBound
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(min(64 << 10, range.upperBound - at)), alignment: 16)
        defer { chunk.deallocate() }
        while at < range.upperBound {
            let part = UnsafeMutableRawBufferPointer(rebasing: chunk[..<Int(min(UInt64(chunk.count), range.upperBound - at))])
            try fill(part, at: at)
            result.append(contentsOf: part)
            at += UInt64(part.count)
        }
        return result
    }
}
