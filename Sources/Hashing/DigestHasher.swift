/// A running SHA-2 digest, computed by OpenSSL. `finalize` resets the hasher, so it can be used again.
public struct DigestHasher: ~Copyable {
    public let algorithm: DigestAlgorithm
    private var hash: SHA2

    public init(_ algorithm: DigestAlgorithm) {
        self.algorithm = algorithm
        hash = SHA2(algorithm)
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        if let start = bytes.baseAddress { hash.update(start, bytes.count) }
    }

    /// Returns the digest of all bytes since the last `finalize`.
    public mutating func finalize() -> ContentDigest {
        let size = algorithm.digestSize
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { out, count in
            guard let start = out.baseAddress else { preconditionFailure("an array of \(size) bytes has memory") }
            hash.finish(into: start)
            count = size
        }
        guard let digest = ContentDigest(algorithm: algorithm, bytes: bytes) else {
            fatalError("libcrypto returned \(bytes.count) bytes for \(algorithm.rawValue)")
        }
        return digest
    }
}
