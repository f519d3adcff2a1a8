internal import ComposefsBytes

/// A digest algorithm that the OCI image specification registers.
public enum DigestAlgorithm: String, Sendable, Hashable, CaseIterable {
    case sha256, sha384, sha512

    /// The length of a digest in bytes.
    public var digestSize: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }
}

/// The digest of a blob's content in OCI notation: `sha256:<64 lower-case hex digits>` (image-spec, descriptor.md#digests).
///
/// All values are well-formed, so a `ContentDigest` can be used as a file name: it contains no `/`, NUL or dot.
public struct ContentDigest: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let algorithm: DigestAlgorithm
    public let bytes: [UInt8]

    /// Nil when the length of `bytes` does not match the algorithm.
    public init?(algorithm: DigestAlgorithm, bytes: [UInt8]) {
        guard bytes.count == algorithm.digestSize else { return nil }
        self.algorithm = algorithm
        self.bytes = bytes
    }

    /// Nil unless `text` is `algorithm:hex` with a known algorithm, the right length and lower-case digits.
    public init?(_ text: String) {
        let utf8 = text.utf8
        guard let colon = utf8.firstIndex(of: UInt8(ascii: ":")),
            let name = String(utf8[..<colon]),
            let algorithm = DigestAlgorithm(rawValue: name),
            let bytes = Hex.decode(utf8[utf8.index(after: colon)...])
        else { return nil }
        self.init(algorithm: algorithm, bytes: bytes)
    }

    /// The digest of bytes in memory.
    public static func of(_ content: some Collection<UInt8>, _ algorithm: DigestAlgorithm = .sha256) -> ContentDigest {
        var hasher = DigestHasher(algorithm)
        let done: Void? = content.withContiguousStorageIfAvailable { hasher.update(UnsafeRawBufferPointer($0)) }
        if done == nil { Array(content).withUnsafeBytes { hasher.update($0) } }
        return hasher.finalize()
    }

    public var hex: String { Hex.encode(bytes) }
    public var description: String { algorithm.rawValue + ":" + hex }

    public static func < (lhs: ContentDigest, rhs: ContentDigest) -> Bool {
        lhs.algorithm == rhs.algorithm
            ? ByteString(lhs.bytes) < ByteString(rhs.bytes) : lhs.algorithm.rawValue < rhs.algorithm.rawValue
    }
}
