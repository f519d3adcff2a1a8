internal import ComposefsCOpenSSL

/// A running SHA-2 digest, computed by OpenSSL. `finalize` resets the hasher, so it can be used again.
public struct DigestHasher: ~Copyable {
    public let algorithm: DigestAlgorithm
    private let context: OpaquePointer

    public init(_ algorithm: DigestAlgorithm) {
        self.algorithm = algorithm
        // Both calls fail only when memory is exhausted or libcrypto is broken; no input can cause it.
        guard let context = EVP_MD_CTX_new(), let method = Self.method(algorithm) else {
            fatalError("libcrypto has no \(algorithm.rawValue)")
        }
        self.context = context
        EVP_DigestInit_ex(context, method, nil)
    }

    deinit { EVP_MD_CTX_free(context) }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
    }

    /// Returns the digest of all bytes since the last `finalize`.
    public mutating func finalize() -> ContentDigest {
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(EVP_MAX_MD_SIZE)) { out, count in
            var length: UInt32 = 0
            EVP_DigestFinal_ex(context, out.baseAddress, &length)
            count = Int(length)
        }
        // With the method that the context has.
        EVP_DigestInit_ex(context, nil, nil)
        guard let digest = ContentDigest(algorithm: algorithm, bytes: bytes) else {
            fatalError("libcrypto returned \(bytes.count) bytes for \(algorithm.rawValue)")
        }
        return digest
    }

    private static func method(_ algorithm: DigestAlgorithm) -> OpaquePointer? {
        switch algorithm {
        case .sha256: EVP_sha256()
        case .sha384: EVP_sha384()
        case .sha512: EVP_sha512()
        }
    }
}
