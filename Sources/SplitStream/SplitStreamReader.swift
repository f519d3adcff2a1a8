public import ComposefsBytes
internal import ComposefsCompression
public import ComposefsHashing

/// Reads a split stream: its references at once, its content chunk by chunk.
///
/// Both header layouts are read. Nothing that the file says is believed before it is checked, and nothing is allocated for it beyond the file's
/// own size: sections must lie inside the file and apart from each other, references inside their tables.
public struct SplitStreamReader<Source: RandomAccessBytes>: ~Copyable {
    public enum Chunk {
        /// A piece of inline content, at most 128 KiB, valid until the next call of `next`. Pieces do not tell where inline chunks were.
        case inline(UnsafeRawBufferPointer)
        /// The content of this object comes here. The format does not say its size.
        case external(ObjectID)
    }

    private static var inputSize: Int { 64 << 10 }
    private static var windowSize: Int { 128 << 10 }

    public let source: Source
    public let algorithm: VerityAlgorithm
    public let contentType: UInt64
    /// Bytes of the whole content, inline and external, as the header says.
    public let totalSize: UInt64
    /// The external objects, each once, in the order of their first use.
    public let objectReferences: [ObjectID]
    /// The names, in the order of the file (ascending, where the writer kept to the format); of equal names the last counts.
    public let namedReferences: [NamedReference]

    /// Bytes of inline content that `next` has given out. Once it has returned nil, all external content together must have
    /// `totalSize - inlineSize` bytes; the reader cannot know, because only the objects have their sizes.
    public private(set) var inlineSize: UInt64 = 0

    private var decoder: Decompressor
    private var body: Range<UInt64>
    private let input: UnsafeMutableRawBufferPointer
    private var pending = UnsafeRawBufferPointer(start: nil, count: 0)
    private let window: UnsafeMutableRawBufferPointer
    /// What of the window was unpacked and not given out.
    private var start = 0
    private var end = 0
    private var chunkLeft: UInt64 = 0
    private var hasExternal = false
    private var isDone = false

    /// Reads and checks all but the body.
    ///
    /// - Parameters:
    ///   - algorithm: the repository's; a stream for another is refused.
    ///   - contentType: refuse any other.
    public init(_ source: Source, algorithm: VerityAlgorithm, contentType: UInt64? = nil) throws(SplitStreamError) {
        let sections = try SplitStreamSections(source, algorithm)
        if let contentType, contentType != sections.contentType {
            throw SplitStreamError(.contentType(found: sections.contentType, expected: contentType))
        }
        let streams = try sections.digests(sections.streamReferences, "stream reference", source, algorithm)
        let objects = try sections.digests(sections.objectReferences, "object reference", source, algorithm)
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

    /// The object that `name` stands for, names being compared byte by byte.
    public func namedReference(_ name: String) -> ObjectID? {
        namedReferences.last { $0.name.utf8.elementsEqual(name.utf8) }?.id
    }

    /// The next piece of content, or nil at the end.
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
        let piece = UnsafeRawBufferPointer(rebasing: window[start..<(start + Int(count))])
        start += Int(count)
        chunkLeft -= count
        inlineSize += count
        return .inline(piece)
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

    /// Unpacks until `count` bytes wait in the window; false where the body has no more.
    private mutating func fill(atLeast count: Int) throws(SplitStreamError) -> Bool {
        guard end - start < count else { return true }
        // At most seven bytes: the beginning of an instruction.
        for index in 0..<(end - start) { window[index] = window[start + index] }
        end -= start
        start = 0
        while end < count {
            if pending.isEmpty, !body.isEmpty {
                let wanted = Int(min(UInt64(input.count), body.upperBound - body.lowerBound))
                let piece = UnsafeMutableRawBufferPointer(rebasing: input[..<wanted])
                try source.fill(piece, at: body.lowerBound)
                body = (body.lowerBound + UInt64(wanted))..<body.upperBound
                pending = UnsafeRawBufferPointer(piece)
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
    /// Fills `buffer` or throws.
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

    /// `range`, which is known to lie in the file. Grows with what can be read, not with what the range claims.
    func bytes(_ range: Range<UInt64>) throws(SplitStreamError) -> [UInt8] {
        var result: [UInt8] = []
        var at = range.lowerBound
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(min(64 << 10, range.upperBound - at)), alignment: 16)
        defer { piece.deallocate() }
        while at < range.upperBound {
            let part = UnsafeMutableRawBufferPointer(rebasing: piece[..<Int(min(UInt64(piece.count), range.upperBound - at))])
            try fill(part, at: at)
            result.append(contentsOf: part)
            at += UInt64(part.count)
        }
        return result
    }
}
