internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// All extended attributes of an image: the distinct ones, which of them several inodes share, and where the shared ones are stored.
///
/// A `Reference` identifies an attribute. The attributes that tell overlayfs where a file's content is are not stored as bytes, because
/// they follow from the object's digest. They need eight bytes per file, even with a million files.
struct AttributeTable {
    struct Reference: Hashable, BitwiseCopyable {
        /// Two bits for the kind, thirty for the index.
        let raw: UInt32
        enum Kind: UInt32 { case kept = 0, metacopy, redirect }
        init(_ kind: Kind, _ index: Int) { raw = kind.rawValue << 30 | UInt32(index) }
        var kind: Kind { Kind(rawValue: raw >> 30) ?? .kept }
        var index: Int { Int(raw & 0x3fff_ffff) }
    }

    struct Name {
        var full: ByteString
        var prefix: UInt8
        /// The part of the name after the prefix, which the image stores.
        var suffix: [UInt8]
        /// The bit of the filter by which readers skip inodes that do not have an attribute of this name.
        var filterBit: UInt32
    }

    struct Kept: Hashable {
        var name: UInt32
        var value: ByteString
    }

    /// First the number of uses of an attribute, then its offset in the shared table plus one; 0 if it is not shared.
    struct Use: BitwiseCopyable { var state: UInt32 = 0 }

    let version: ErofsVersion
    private(set) var names: [Name] = []
    private(set) var kept: [Kept] = []
    private var nameIndex: [ByteString: UInt32] = [:]
    private var keptIndex: [Kept: UInt32] = [:]
    private var keptUses: [Use] = []
    /// By the number of the tree's object.
    private var metacopyUses: LargeArray<Use>
    private var redirectUses: LargeArray<Use>
    private(set) var shared: [Reference] = []

    let metacopyName: UInt32
    let redirectName: UInt32
    /// `trusted.overlay.metacopy` without a digest.
    let emptyMetacopy: Reference

    init(version: ErofsVersion, _ tree: borrowing FileTree) {
        self.version = version
        metacopyUses = LargeArray(repeating: Use(), count: tree.objectCapacity, in: tree.memory)
        redirectUses = LargeArray(repeating: Use(), count: tree.objectCapacity, in: tree.memory)
        metacopyName = 0
        redirectName = 1
        emptyMetacopy = Reference(.kept, 0)
        _ = internName(OverlayAttribute.metacopy)
        _ = internName(OverlayAttribute.redirect)
        _ = intern(ExtendedAttribute(name: OverlayAttribute.metacopy, value: ByteString()))
    }

    // MARK: Adding

    private mutating func internName(_ full: ByteString) -> UInt32 {
        if let known = nameIndex[full] { return known }
        var prefix = Erofs.attributePrefixes.count - 1
        while prefix > 0 {
            let skipped = version.isFirstEpoch && prefix == Int(Erofs.lustrePrefix)
            if !skipped, full.bytes.starts(with: Erofs.attributePrefixes[prefix]) { break }
            prefix -= 1
        }
        let suffix = Array(full.bytes.dropFirst(Erofs.attributePrefixes[prefix].count))
        let bit = suffix.withUnsafeBytes { xxHash32($0, seed: Erofs.filterSeed &+ UInt32(prefix)) } % 32
        let index = UInt32(names.count)
        names.append(Name(full: full, prefix: UInt8(prefix), suffix: suffix, filterBit: 1 << bit))
        nameIndex[full] = index
        return index
    }

    mutating func intern(_ attribute: ExtendedAttribute) -> Reference {
        let key = Kept(name: internName(attribute.name), value: attribute.value)
        if let known = keptIndex[key] { return Reference(.kept, Int(known)) }
        let index = kept.count
        kept.append(key)
        keptUses.append(Use())
        keptIndex[key] = UInt32(index)
        return Reference(.kept, index)
    }

    // MARK: Looking

    func nameIndex(of reference: Reference) -> UInt32 {
        switch reference.kind {
        case .kept: kept[reference.index].name
        case .metacopy: metacopyName
        case .redirect: redirectName
        }
    }

    func name(of reference: Reference) -> Name { names[Int(nameIndex(of: reference))] }

    /// The value of an attribute in bytes.
    func value(of reference: Reference, in tree: borrowing FileTree) -> [UInt8] {
        if reference.kind == .kept { return kept[reference.index].value.bytes }
        let digest = tree.object(reference.index)
        if reference.kind == .metacopy {
            return Self.bytes(ObjectAttribute.metacopySize(digest.algorithm)) { ObjectAttribute.encodeMetacopy(digest, into: $0) }
        }
        return Self.bytes(ObjectAttribute.redirectSize(digest.algorithm)) { ObjectAttribute.encodeRedirect(digest, into: $0) }
    }

    private static func bytes(_ count: Int, _ encode: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.withUnsafeMutableBytes { encode($0) }
        return bytes
    }

    /// The size of an entry in an inode or in the shared table, in bytes.
    static func entrySize(suffix: Int, value: Int) -> Int {
        Erofs.align(AttributeEntryLayout.size + suffix + value, to: AttributeEntryLayout.alignment)
    }

    // MARK: Sharing

    mutating func count(_ reference: Reference) {
        switch reference.kind {
        case .kept: keptUses[reference.index].state &+= 1
        case .metacopy: metacopyUses[reference.index].state &+= 1
        case .redirect: redirectUses[reference.index].state &+= 1
        }
    }

    /// The offset in the shared table; nil for an attribute that only one inode has. Valid after `share`.
    @inline(__always)
    func sharedOffset(_ reference: Reference) -> Int? {
        let state: UInt32 =
            switch reference.kind {
            case .kept: keptUses[reference.index].state
            case .metacopy: metacopyUses[reference.index].state
            case .redirect: redirectUses[reference.index].state
            }
        return state == 0 ? nil : Int(state - 1)
    }

    /// After counting: assigns attributes that are used at least twice to the shared table. Returns the table's size in bytes.
    mutating func share(in tree: borrowing FileTree) throws(ErofsError) -> Int {
        var found: [Reference] = []
        for index in keptUses.indices where keptUses[index].state >= 2 { found.append(Reference(.kept, index)) }
        for index in metacopyUses.indices where metacopyUses[index].state >= 2 { found.append(Reference(.metacopy, index)) }
        for index in redirectUses.indices where redirectUses[index].state >= 2 { found.append(Reference(.redirect, index)) }
        let ranks = nameRanks()
        let firstEpoch = version.isFirstEpoch
        found.sort { lhs, rhs in
            let (l, r) = (ranks[Int(nameIndex(of: lhs))], ranks[Int(nameIndex(of: rhs))])
            if l != r { return firstEpoch ? l > r : l < r }
            if lhs.kind == rhs.kind, lhs.kind != .kept {
                let (first, second) = (tree.object(lhs.index), tree.object(rhs.index))
                // Both forms have the order of the digests.
                if first.algorithm == second.algorithm { return firstEpoch ? first > second : first < second }
            }
            let (first, second) = (self.value(of: lhs, in: tree), self.value(of: rhs, in: tree))
            // Versions 0 and 1 sort in descending order, and a longer value sorts before any shorter one.
            if firstEpoch, first.count != second.count { return first.count > second.count }
            let order = first.withUnsafeBytes { first in second.withUnsafeBytes { compareBytes(first, $0) } }
            return firstEpoch ? order > 0 : order < 0
        }
        for index in keptUses.indices { keptUses[index] = Use() }
        for index in metacopyUses.indices { metacopyUses[index] = Use() }
        for index in redirectUses.indices { redirectUses[index] = Use() }
        var offset = 0
        for reference in found {
            let use = Use(state: UInt32(offset + 1))
            switch reference.kind {
            case .kept: keptUses[reference.index] = use
            case .metacopy: metacopyUses[reference.index] = use
            case .redirect: redirectUses[reference.index] = use
            }
            offset += Self.entrySize(suffix: name(of: reference).suffix.count, value: value(of: reference, in: tree).count)
            guard offset <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(offset)) }
        }
        shared = found
        return offset
    }

    /// The rank of each name in the order of the shared table.
    private func nameRanks() -> [Int] {
        let order = names.indices.sorted { lhs, rhs in
            if version.isFirstEpoch { return names[lhs].full < names[rhs].full }
            if names[lhs].prefix != names[rhs].prefix { return names[lhs].prefix < names[rhs].prefix }
            return names[lhs].suffix.lexicographicallyPrecedes(names[rhs].suffix)
        }
        var ranks = Array(repeating: 0, count: names.count)
        for (rank, name) in order.enumerated() { ranks[name] = rank }
        return ranks
    }
}
