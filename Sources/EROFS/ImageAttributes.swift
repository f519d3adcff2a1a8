internal import ComposefsBytes
internal import ComposefsHashing

/// The extended attributes of one inode of an untrusted image, and their meaning for overlayfs.
struct ImageAttributes {
    struct Entry {
        /// The index in the table of prefixes.
        var prefix: UInt8
        /// The range of the rest of the name in the image.
        var suffix: Range<Int>
        var value: Range<Int>
        /// Whether the attribute is in the shared table.
        var isShared: Bool
    }

    private(set) var entries: [Entry] = []
    /// The digest that overlayfs checks on open.
    private(set) var metacopy: ObjectID?
    private(set) var hasMetacopy = false
    /// The object from which a file's content is read.
    private(set) var redirect: ObjectID?
    private(set) var hasRedirect = false
    /// Whether the inode has the attribute of an escaped whiteout.
    private(set) var isEscapedWhiteout = false
    private(set) var hasACL = false
    /// Whether the inode has attributes that are escaped for overlayfs.
    private(set) var hasOverlayEscape = false
    /// The total size of names and values in bytes.
    private(set) var byteCount = 0

    mutating func read(_ range: Range<Int>, of source: ImageSource) throws(Fault) {
        entries.removeAll(keepingCapacity: true)
        metacopy = nil
        redirect = nil
        (hasMetacopy, hasRedirect, isEscapedWhiteout) = (false, false, false)
        (hasACL, hasOverlayEscape) = (false, false)
        byteCount = 0
        if range.isEmpty { return }
        let filter = try source.load(range.lowerBound + AttributeHeaderLayout.nameFilter, as: UInt32.self)
        let sharedCount = Int(try source.load(range.lowerBound + AttributeHeaderLayout.sharedCount, as: UInt8.self))
        let reserved = AttributeHeaderLayout.reserved
        try source.expectZero(
            (range.lowerBound + reserved.lowerBound)..<(range.lowerBound + reserved.upperBound), "a reserved field of the attributes")
        var at = range.lowerBound + AttributeHeaderLayout.size
        guard range.upperBound - at >= AttributeHeaderLayout.referenceSize * sharedCount else {
            throw Fault("the \(sharedCount) shared attributes do not fit in the inode")
        }
        var bits: UInt32 = 0
        for _ in 0..<sharedCount {
            let reference = Int(try source.load(at, as: UInt32.self))
            let offset = source.superblock.sharedBase + AttributeEntryLayout.alignment * reference
            _ = try readEntry(at: offset, end: source.bytes.count, isShared: true, source, &bits)
            at += AttributeHeaderLayout.referenceSize
        }
        while at < range.upperBound {
            at = try readEntry(at: at, end: range.upperBound, isShared: false, source, &bits)
        }
        if entries.isEmpty { throw Fault("it has space for attributes but no attributes") }
        if source.superblock.hasFilter, ~filter != bits { throw Fault("the attribute filter does not match its attributes") }
        try refuseDuplicates(source)
    }

    /// Reads an entry and returns the offset of the next one.
    private mutating func readEntry(
        at: Int, end: Int, isShared: Bool, _ source: ImageSource, _ bits: inout UInt32
    ) throws(Fault) -> Int {
        guard at <= end - AttributeEntryLayout.size else { throw Fault("an attribute reaches beyond its end") }
        let suffixCount = Int(try source.load(at + AttributeEntryLayout.nameLength, as: UInt8.self))
        let prefix = try source.load(at + AttributeEntryLayout.namePrefix, as: UInt8.self)
        let valueCount = Int(try source.load(at + AttributeEntryLayout.valueSize, as: UInt16.self))
        let suffix = (at + AttributeEntryLayout.size)..<(at + AttributeEntryLayout.size + suffixCount)
        let value = suffix.upperBound..<(suffix.upperBound + valueCount)
        let next = Erofs.align(value.upperBound, to: AttributeEntryLayout.alignment)
        guard next <= end else { throw Fault("an attribute reaches beyond its end") }
        guard Int(prefix) < Erofs.attributePrefixes.count else { throw Fault("attribute name prefix \(prefix) is unknown") }
        try source.expectZero(value.upperBound..<next, "the padding of an attribute")
        let name = try source.slice(suffix)
        if name.contains(0) { throw Fault("an attribute's name holds a NUL") }
        if prefix == 0 || prefix == Erofs.lustrePrefix { try checkPrefix(prefix, name, source.superblock.version) }
        bits |= 1 << (xxHash32(name, seed: Erofs.filterSeed &+ UInt32(prefix)) % 32)
        byteCount += Erofs.attributePrefixes[Int(prefix)].count + suffixCount + valueCount
        entries.append(Entry(prefix: prefix, suffix: suffix, value: value, isShared: isShared))
        if prefix == 2 || prefix == 3 { hasACL = true }
        if prefix == Erofs.trustedPrefix { try readOverlay(name, try source.slice(value), source) }
        return next
    }

    /// Checks that the name is stored in the form of the image's version. The kernel would not find other forms.
    private func checkPrefix(_ prefix: UInt8, _ name: UnsafeRawBufferPointer, _ version: ErofsVersion) throws(Fault) {
        if prefix == Erofs.lustrePrefix {
            guard !version.isFirstEpoch else { throw Fault("attribute name prefix \(prefix) is not one of this version") }
            return
        }
        if name.isEmpty { throw Fault("an attribute has no name") }
        for (index, known) in Erofs.attributePrefixes.enumerated().dropFirst() where name.starts(with: known) {
            if index == Int(Erofs.lustrePrefix), version.isFirstEpoch { continue }
            throw Fault("an attribute's name is stored in full though it has a known prefix")
        }
    }

    private mutating func readOverlay(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ source: ImageSource) throws(Fault)
    {
        guard name.count >= OverlaySuffix.prefix.count, name.starts(with: OverlaySuffix.prefix) else { return }
        if name.starts(with: OverlaySuffix.escaped) { hasOverlayEscape = true }
        if name.elementsEqual(OverlaySuffix.metacopy) {
            hasMetacopy = true
            if value.isEmpty { return }
            guard let id = ObjectAttribute.decodeMetacopy(value) else { throw Fault("its metacopy attribute is malformed") }
            try checkAlgorithm(id, source)
            metacopy = id
        } else if name.elementsEqual(OverlaySuffix.redirect) {
            hasRedirect = true
            guard let id = ObjectAttribute.decodeRedirect(value) else { return }
            try checkAlgorithm(id, source)
            redirect = id
        } else if name.elementsEqual(OverlaySuffix.whiteout) {
            isEscapedWhiteout = true
        }
    }

    private func checkAlgorithm(_ id: ObjectID, _ source: ImageSource) throws(Fault) {
        guard source.algorithm == nil || source.algorithm == id.algorithm else {
            throw Fault("object \(id) is named by \(id.algorithm.name), not by the repository's algorithm")
        }
    }

    private func refuseDuplicates(_ source: ImageSource) throws(Fault) {
        func name(_ entry: Entry) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: source.bytes[entry.suffix]) }
        var order = Array(entries.indices)
        if order.count > 8 {
            order.sort {
                let (l, r) = (entries[$0], entries[$1])
                return l.prefix != r.prefix ? l.prefix < r.prefix : compareBytes(name(l), name(r)) < 0
            }
        }
        for position in order.indices.dropFirst() {
            // In sorted order, equal names are neighbours. A few attributes are compared pairwise instead.
            for other in (order.count > 8 ? position - 1 : 0)..<position {
                let (l, r) = (entries[order[position]], entries[order[other]])
                if l.prefix == r.prefix, l.suffix.count == r.suffix.count, compareBytes(name(l), name(r)) == 0 {
                    throw Fault("it has a duplicate attribute")
                }
            }
        }
    }
}

/// The names of overlayfs's attributes after `trusted.`.
enum OverlaySuffix {
    static let prefix = Array("overlay.".utf8)
    static let escaped = Array("overlay.overlay.".utf8)
    static let metacopy = Array("overlay.metacopy".utf8)
    static let redirect = Array("overlay.redirect".utf8)
    static let whiteout = Array("overlay.overlay.whiteout".utf8)
}
