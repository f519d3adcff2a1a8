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

    /// How a name is stored in an image.
    struct Name: BitwiseCopyable {
        var prefix: UInt8
        /// The length of the prefix, which the image does not store.
        var prefixLength: UInt8
        /// With the prefix.
        var length: UInt32
        /// The bit of the filter by which readers skip inodes that do not have an attribute of this name.
        var filterBit: UInt32
    }

    /// First the number of uses of an attribute, then its offset in the shared table plus one; 0 if it is not shared.
    struct Use: BitwiseCopyable { var state: UInt32 = 0 }

    let version: ErofsVersion
    private var names: DistinctBytes
    private var nameForms: LargeArray<Name>
    /// The number of the name, then the value.
    private var kept: DistinctBytes
    private var keptUses: LargeArray<Use>
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
        names = DistinctBytes(in: tree.memory)
        nameForms = LargeArray(in: tree.memory)
        kept = DistinctBytes(in: tree.memory)
        keptUses = LargeArray(in: tree.memory)
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
        let index = full.bytes.withUnsafeBytes { names.insert($0) }
        guard index == nameForms.count else { return UInt32(index) }
        var prefix = Erofs.attributePrefixes.count - 1
        while prefix > 0 {
            let skipped = version.isFirstEpoch && prefix == Int(Erofs.lustrePrefix)
            if !skipped, full.bytes.starts(with: Erofs.attributePrefixes[prefix]) { break }
            prefix -= 1
        }
        let prefixLength = Erofs.attributePrefixes[prefix].count
        let bit = full.bytes[prefixLength...].withUnsafeBytes { xxHash32($0, seed: Erofs.filterSeed &+ UInt32(prefix)) } % 32
        nameForms.append(Name(prefix: UInt8(prefix), prefixLength: UInt8(prefixLength), length: UInt32(full.count), filterBit: 1 << bit))
        return UInt32(index)
    }

    mutating func intern(_ attribute: ExtendedAttribute) -> Reference {
        var key = ByteWriter(capacity: Self.nameSize + attribute.value.count)
        key.u32(internName(attribute.name))
        key.append(attribute.value.bytes)
        let index = key.bytes.withUnsafeBytes { kept.insert($0) }
        if index == keptUses.count { keptUses.append(Use()) }
        return Reference(.kept, index)
    }

    /// Before each value in `kept`, in bytes.
    private static let nameSize = 4

    // MARK: Looking

    private func nameIndex(of reference: Reference) -> Int {
        switch reference.kind {
        case .kept: kept.withBytes(of: reference.index) { Int($0.loadUnaligned(as: UInt32.self).littleEndian) }
        case .metacopy: Int(metacopyName)
        case .redirect: Int(redirectName)
        }
    }

    func name(of reference: Reference) -> Name { nameForms[nameIndex(of: reference)] }

    /// The name with its prefix.
    func fullName(of reference: Reference) -> ByteString { names.withBytes(of: nameIndex(of: reference)) { ByteString($0) } }

    /// The length of the part of the name that the image stores.
    func suffixLength(of reference: Reference) -> Int {
        let name = name(of: reference)
        return Int(name.length) - Int(name.prefixLength)
    }

    /// Passes the part of the name that the image stores to `body`. The bytes are valid only during the call.
    func withSuffix<Result>(of reference: Reference, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let name = nameIndex(of: reference)
        return names.withBytes(of: name) { body(UnsafeRawBufferPointer(rebasing: $0.dropFirst(Int(nameForms[name].prefixLength)))) }
    }

    /// The length of the value of an attribute that is kept.
    func keptValueLength(_ index: Int) -> Int { kept.byteCount(of: index) - Self.nameSize }

    /// Passes the value of an attribute that is kept to `body`. The bytes are valid only during the call.
    func withKeptValue<Result>(_ index: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        kept.withBytes(of: index) { body(UnsafeRawBufferPointer(rebasing: $0.dropFirst(Self.nameSize))) }
    }

    /// Whether any attribute is a POSIX ACL.
    var hasACL: Bool {
        for index in keptUses.indices where (2...3).contains(name(of: Reference(.kept, index)).prefix) { return true }
        return false
    }

    /// The length of an attribute's value, in bytes.
    func valueLength(of reference: Reference, in tree: borrowing FileTree) -> Int {
        switch reference.kind {
        case .kept: keptValueLength(reference.index)
        case .metacopy: ObjectAttribute.metacopySize(tree.objectAlgorithm(reference.index))
        case .redirect: ObjectAttribute.redirectSize(tree.objectAlgorithm(reference.index))
        }
    }

    /// The value of an attribute in bytes.
    private func value(of reference: Reference, in tree: borrowing FileTree) -> [UInt8] {
        if reference.kind == .kept { return withKeptValue(reference.index) { Array($0) } }
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
            let (l, r) = (ranks[nameIndex(of: lhs)], ranks[nameIndex(of: rhs)])
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
            offset += Self.entrySize(suffix: suffixLength(of: reference), value: valueLength(of: reference, in: tree))
            guard offset <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(offset)) }
        }
        shared = found
        return offset
    }

    /// The rank of each name in the order of the shared table.
    private func nameRanks() -> [UInt32] {
        let order = (0..<UInt32(nameForms.count)).sorted { lhs, rhs in
            let (left, right) = (nameForms[Int(lhs)], nameForms[Int(rhs)])
            if !version.isFirstEpoch, left.prefix != right.prefix { return left.prefix < right.prefix }
            let skipped = version.isFirstEpoch ? 0 : Int(left.prefixLength)
            return names.withBytes(of: Int(lhs)) { l in
                names.withBytes(of: Int(rhs)) { r in
                    compareBytes(UnsafeRawBufferPointer(rebasing: l[skipped...]), UnsafeRawBufferPointer(rebasing: r[skipped...])) < 0
                }
            }
        }
        var ranks = [UInt32](repeating: 0, count: nameForms.count)
        for (rank, name) in order.enumerated() { ranks[Int(name)] = UInt32(rank) }
        return ranks
    }
}
