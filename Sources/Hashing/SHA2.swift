internal import ComposefsCOpenSSL

/// A running SHA-2 digest, computed by the functions of OpenSSL for this family alone (SHA256_Init(3)). Those for any digest first read OpenSSL's
/// configuration and set up all of its algorithms, which takes longer than a small command does.
struct SHA2: ~Copyable {
    private let algorithm: DigestAlgorithm
    private let context: UnsafeMutableRawPointer

    init(_ algorithm: DigestAlgorithm) {
        self.algorithm = algorithm
        context =
            switch algorithm {
            case .sha256: .allocate(byteCount: MemoryLayout<SHA256_CTX>.size, alignment: MemoryLayout<SHA256_CTX>.alignment)
            case .sha384, .sha512: .allocate(byteCount: MemoryLayout<SHA512_CTX>.size, alignment: MemoryLayout<SHA512_CTX>.alignment)
            }
        begin()
    }

    deinit { context.deallocate() }

    private var narrow: UnsafeMutablePointer<SHA256_CTX> { context.assumingMemoryBound(to: SHA256_CTX.self) }
    private var wide: UnsafeMutablePointer<SHA512_CTX> { context.assumingMemoryBound(to: SHA512_CTX.self) }

    // None of the functions can fail.

    private func begin() {
        switch algorithm {
        case .sha256: SHA256_Init(narrow)
        case .sha384: SHA384_Init(wide)
        case .sha512: SHA512_Init(wide)
        }
    }

    mutating func update(_ bytes: UnsafeRawPointer, _ count: Int) {
        switch algorithm {
        case .sha256: SHA256_Update(narrow, bytes, count)
        case .sha384: SHA384_Update(wide, bytes, count)
        case .sha512: SHA512_Update(wide, bytes, count)
        }
    }

    /// Writes the digest of all bytes since the last `finish`.
    ///
    /// - Parameter out: memory for a digest.
    mutating func finish(into out: UnsafeMutableRawPointer) {
        let out = out.assumingMemoryBound(to: UInt8.self)
        switch algorithm {
        case .sha256: SHA256_Final(out, narrow)
        case .sha384: SHA384_Final(out, wide)
        case .sha512: SHA512_Final(out, wide)
        }
        begin()
    }
}
