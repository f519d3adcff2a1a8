internal import ComposefsBytes
internal import ComposefsHashing

/// Names and paths inside a repository, all relative to its root directory.
enum Layout {
    static let metadata: ByteString = "meta.json"
    static let objects: ByteString = "objects"
    static let streams: ByteString = "streams"
    static let images: ByteString = "images"
    static let streamReferences: ByteString = "streams/refs"
    static let imageReferences: ByteString = "images/refs"
    static let staging: ByteString = ".staging"
    /// Files that were found under a name that is not theirs; see `Repository.setAside`.
    static let damaged: ByteString = ".damaged"
    static let leases: ByteString = ".leases"
    /// Below `images/refs`.
    static let leaseDirectory: ByteString = ".leases"
    static let leaseReferences: ByteString = "images/refs/.leases"
    static let symlinkPrefix: ByteString = ".symlink-"
    static let objectPrefix: ByteString = ".tmp-object-"

    /// `objects/XX`.
    static func objectDirectory(_ id: ObjectID) -> ByteString { ByteString(Array(objectPath(id).bytes[..<10])) }

    /// XX in `objects/XX`.
    static func firstByte(_ id: ObjectID) -> UInt8 { id.withUnsafeBytes { $0[0] } }

    /// `objects/XX/rest`. Called for every object that is stored: one allocation, and no `String`.
    static func objectPath(_ id: ObjectID) -> ByteString { path(prefix: "objects/", id) }

    /// `../objects/XX/rest`, the target of links in `streams/` and `images/`.
    static func objectTarget(_ id: ObjectID) -> ByteString { path(prefix: "../objects/", id) }

    private static func path(prefix: StaticString, _ id: ObjectID) -> ByteString {
        let head = prefix.utf8CodeUnitCount
        return ByteString(
            [UInt8](unsafeUninitializedCapacity: head + 2 * id.algorithm.digestSize + 1) { out, count in
                prefix.withUTF8Buffer { for index in 0..<head { out[index] = $0[index] } }
                var at = head
                id.withUnsafeBytes { bytes in
                    for index in 0..<bytes.count {
                        out[at] = Hex.digit(bytes[index] >> 4)
                        out[at + 1] = Hex.digit(bytes[index] & 15)
                        at += 2
                        if index == 0 {
                            out[at] = UInt8(ascii: "/")
                            at += 1
                        }
                    }
                }
                count = at
            })
    }

    /// The object whose file is `rest` in the directory of digests that begin with `first`; nil if the name is not that of an object.
    static func objectID(first: UInt8, rest: ByteString, _ algorithm: VerityAlgorithm) -> ObjectID? {
        let size = algorithm.digestSize
        guard rest.count == 2 * size - 2 else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: size, alignment: 8) { digest in
            digest[0] = first
            for index in 1..<size {
                guard let high = Hex.value(of: rest.bytes[2 * index - 2]), let low = Hex.value(of: rest.bytes[2 * index - 1]) else {
                    return nil
                }
                digest[index] = high << 4 | low
            }
            return ObjectID(algorithm: algorithm, bytes: UnsafeRawBufferPointer(digest))
        }
    }

    /// The object that a link in `streams/` or `images/` leads to: `../`, any directories, then `XX/rest`, as composefs-rs reads it.
    static func objectID(ofTarget target: ByteString, _ algorithm: VerityAlgorithm) -> ObjectID? {
        guard target.hasPrefix("../"), let id = ObjectID(objectPath: target.bytes.suffix(2 * algorithm.digestSize + 1)) else { return nil }
        return id.algorithm == algorithm ? id : nil
    }

    /// The target of a link `name` that leads to `target` (both relative to the root): what remains after the common ancestors, with one
    /// `..` for each directory of the name that is not shared. Those directories have to be made, outermost first.
    static func relativeLink(_ name: ByteString, to target: ByteString) -> (directories: [ByteString], target: ByteString) {
        let slash = UInt8(ascii: "/")
        let parents = name.bytes.split(separator: slash).dropLast()
        let parts = target.bytes.split(separator: slash)
        var shared = 0
        while shared < parents.count, shared < parts.count, parents[shared] == parts[shared] { shared += 1 }
        var directories: [ByteString] = []
        for count in (shared + 1)..<max(parents.count + 1, shared + 1) {
            directories.append(ByteString(Array(parents[..<count].joined(separator: [slash]))))
        }
        let up = Array(repeating: ArraySlice<UInt8>([UInt8(ascii: "."), UInt8(ascii: ".")]), count: parents.count - shared)
        return (directories, ByteString(Array((up + parts[shared...]).joined(separator: [slash]))))
    }

    /// The object that a stream reference or image reference names: the last component of its target.
    static func baseName(_ path: ByteString) -> ByteString {
        ByteString(Array(path.bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).last ?? []))
    }

    /// One directory level of `streams/` or `images/`: not empty, no `/` or NUL, not `.`, `..` or `refs`, at most 255 bytes.
    static func checkEntryName(_ name: ByteString) throws(RepositoryError) {
        try checkComponent(name.bytes[...], of: name)
        guard name != "refs" else { throw .invalidName(name, .reserved) }
        guard !name.bytes.contains(UInt8(ascii: "/")) else { throw .invalidName(name, .slash) }
    }

    /// A reference's name below `refs/`: components separated by single slashes.
    static func checkReferenceName(_ name: ByteString) throws(RepositoryError) {
        for part in name.bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            try checkComponent(part, of: name)
        }
    }

    /// NAME_MAX of Linux.
    private static let componentLimit = 255

    private static func checkComponent(_ part: ArraySlice<UInt8>, of name: ByteString) throws(RepositoryError) {
        guard !part.isEmpty else { throw .invalidName(name, .emptyComponent) }
        guard part.count <= componentLimit else { throw .invalidName(name, .componentTooLong(limit: componentLimit)) }
        guard !part.contains(0) else { throw .invalidName(name, .containsNUL) }
        guard !part.elementsEqual([UInt8(ascii: ".")]), !part.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) else {
            throw .invalidName(name, .dots)
        }
    }
}
