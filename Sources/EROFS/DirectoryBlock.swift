/// A block of a directory, or the part of it in its inode's tail: the entries, followed by their names. No read leaves the block, whatever
/// bytes it contains.
struct DirectoryBlock {
    private let source: ImageSource
    /// The range in the image.
    private let range: Range<Int>
    let count: Int

    init(_ source: ImageSource, _ range: Range<Int>) throws(Fault) {
        self.source = source
        self.range = range
        let first = Int(try source.load(range.lowerBound + DirectoryEntryLayout.nameOffset, as: UInt16.self))
        guard first > 0, first % DirectoryEntryLayout.size == 0, first <= range.count else {
            throw Fault("a directory block's first name is at \(first)")
        }
        count = first / DirectoryEntryLayout.size
    }

    /// - Parameter index: The index of the block in its directory.
    init(_ source: ImageSource, _ directory: ImageInode, _ index: Int) throws(Fault) {
        let start = directory.blocks.lowerBound + index * Erofs.blockSize
        try self.init(source, index < directory.blocks.count / Erofs.blockSize ? start..<(start + Erofs.blockSize) : directory.tail)
    }

    private func offset(_ entry: Int, _ field: Int) -> Int { range.lowerBound + entry * DirectoryEntryLayout.size + field }

    func number(_ entry: Int) throws(Fault) -> UInt64 { try source.load(offset(entry, DirectoryEntryLayout.number), as: UInt64.self) }

    func fileType(_ entry: Int) throws(Fault) -> UInt8 { try source.load(offset(entry, DirectoryEntryLayout.fileType), as: UInt8.self) }

    func reserved(_ entry: Int) throws(Fault) -> UInt8 { try source.load(offset(entry, DirectoryEntryLayout.reserved), as: UInt8.self) }

    private func nameOffset(_ entry: Int) throws(Fault) -> Int {
        Int(try source.load(offset(entry, DirectoryEntryLayout.nameOffset), as: UInt16.self))
    }

    /// The range of an entry's name in the image. The last name ends at the first zero byte, if there is one.
    func nameRange(_ entry: Int) throws(Fault) -> Range<Int> {
        let start = try nameOffset(entry)
        let end = entry + 1 < count ? try nameOffset(entry + 1) : range.count
        guard end <= range.count else { throw Fault("a directory entry's name is outside its block") }
        guard start < end else { throw Fault("a directory entry has no name or is out of order") }
        let name = (range.lowerBound + start)..<(range.lowerBound + end)
        guard entry + 1 == count, let zero = try source.slice(name).firstIndex(of: 0) else { return name }
        return name.lowerBound..<(name.lowerBound + zero)
    }

    func name(_ entry: Int) throws(Fault) -> UnsafeRawBufferPointer {
        let name = try source.slice(try nameRange(entry))
        guard !name.isEmpty else { throw Fault("a directory entry has no name") }
        return name
    }

    /// The bytes after the last name.
    func padding() throws(Fault) -> Range<Int> { try nameRange(count - 1).upperBound..<range.upperBound }
}
