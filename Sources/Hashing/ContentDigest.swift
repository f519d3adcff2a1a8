internal import ComposefsBytes

/// A registered OCI digest algorithm.
public enum DigestAlgorithm: String, Sendable, Hashable, CaseIterable {
    case sha256, sha384, sha512

    /// Digest length in bytes.
    public var digestSize: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }
}

/// The digest of a blob's content as OCI writes it: `sha256:<64 lower-case hex digits>` (image-spec, descriptor.md#digests).
///
/// Only well-formed values exist, so a `ContentDigest` may be used as a file name: it never holds `/`, NUL or a dot.
public struct ContentDigest: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let algorithm: DigestAlgorithm
    public let bytes: [UInt8]

    /// Nil where the length is not the algorithm's.
    public init?(algorithm: DigestAlgorithm, bytes: [UInt8]) {
        guard bytes.count == algorithm.digestSize else { return nil }
        self.algorithm = algorithm
        self.bytes = bytes
    }

    /// Nil where `text` is not `algorithm:hex` with a known algorithm, the right length and lower-case digits.
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
