internal import ComposefsBytes
internal import ComposefsHashing

/// The values of the two attributes that tell overlayfs which object has a file's content.
enum ObjectAttribute {
    /// `struct ovl_metacopy` (fs/overlayfs/overlayfs.h).
    private enum Metacopy {
        static let version = 0
        static let length = 1
        static let flags = 2
        static let algorithm = 3
        static let digest = 4
    }

    // MARK: trusted.overlay.metacopy

    static func metacopySize(_ algorithm: VerityAlgorithm) -> Int { Metacopy.digest + algorithm.digestSize }

    /// - Parameter out: A buffer of exactly `metacopySize` bytes.
    static func encodeMetacopy(_ id: ObjectID, into out: UnsafeMutableRawBufferPointer) {
        precondition(out.count == metacopySize(id.algorithm), "the value's room is its size")
        out[Metacopy.version] = 0
        out[Metacopy.length] = UInt8(out.count)
        out[Metacopy.flags] = 0
        out[Metacopy.algorithm] = id.algorithm.rawValue
        id.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: out[Metacopy.digest...]).copyMemory(from: $0) }
    }

    /// Nil if the value is not exactly in the form above.
    static func decodeMetacopy(_ value: UnsafeRawBufferPointer) -> ObjectID? {
        guard value.count >= Metacopy.digest, value[Metacopy.version] == 0, Int(value[Metacopy.length]) == value.count,
            value[Metacopy.flags] == 0, let algorithm = VerityAlgorithm(rawValue: value[Metacopy.algorithm])
        else { return nil }
        return ObjectID(algorithm: algorithm, bytes: UnsafeRawBufferPointer(rebasing: value[Metacopy.digest...]))
    }

    // MARK: trusted.overlay.redirect

    static func redirectSize(_ algorithm: VerityAlgorithm) -> Int { 1 + pathLength(algorithm) }

    /// The length of `XX/rest` in bytes.
    private static func pathLength(_ algorithm: VerityAlgorithm) -> Int { 2 * algorithm.digestSize + 1 }

    /// The object's path below the data layer's root, `/XX/rest`.
    ///
    /// - Parameter out: A buffer of exactly `redirectSize` bytes.
    static func encodeRedirect(_ id: ObjectID, into out: UnsafeMutableRawBufferPointer) {
        precondition(out.count == redirectSize(id.algorithm), "the value's room is its size")
        out[0] = UInt8(ascii: "/")
        id.withUnsafeBytes { bytes in
            for (index, byte) in bytes.enumerated() {
                let at = 1 + 2 * index + (index > 0 ? 1 : 0)
                out[at] = Hex.digit(byte >> 4)
                out[at + 1] = Hex.digit(byte & 15)
            }
        }
        out[3] = UInt8(ascii: "/")
    }

    /// Decodes the last two names of a path, `…XX/rest`; nil if they do not name an object.
    static func decodeRedirect(_ path: UnsafeRawBufferPointer) -> ObjectID? {
        for algorithm in VerityAlgorithm.allCases {
            let length = pathLength(algorithm)
            guard path.count == length || (path.count > length && path[path.count - length - 1] == UInt8(ascii: "/")) else { continue }
            let start = path.count - length
            guard path[start + 2] == UInt8(ascii: "/") else { return nil }
            return withUnsafeTemporaryAllocation(byteCount: algorithm.digestSize, alignment: 8) { digest in
                for index in 0..<algorithm.digestSize {
                    let at = start + 2 * index + (index > 0 ? 1 : 0)
                    guard let high = Hex.value(of: path[at]), let low = Hex.value(of: path[at + 1]) else { return nil }
                    digest[index] = high << 4 | low
                }
                return ObjectID(algorithm: algorithm, bytes: UnsafeRawBufferPointer(digest))
            }
        }
        return nil
    }
}
