internal import ComposefsCOpenSSL

/// Signs fs-verity digests for the kernel's built-in signatures (Documentation/filesystems/fsverity.rst, "Built-in signature
/// verification"). Implementations must be callable from several threads at once.
public protocol VeritySigner: Sendable {
    /// Returns a PKCS#7 message in DER with one detached signature over ``VeritySignature/message(for:)``, without signed attributes. The
    /// message has at most ``VeritySignature/sizeLimit`` bytes.
    func signature(of id: ObjectID) throws(VeritySignatureError) -> [UInt8]
}

/// Built-in signatures of fs-verity.
public enum VeritySignature {
    /// The kernel's limit for a signature, in bytes (`FS_VERITY_MAX_SIGNATURE_SIZE`).
    public static let sizeLimit = 16128

    /// The signed bytes: `struct fsverity_formatted_digest` (linux/fsverity.h). These are `FSVerity`, the kernel's algorithm number and
    /// the length of the digest, both as little-endian 16-bit numbers, and the digest.
    public static func message(for id: ObjectID) -> [UInt8] {
        let digest = id.bytes
        return Array("FSVerity".utf8) + [id.algorithm.rawValue, 0, UInt8(truncatingIfNeeded: digest.count), 0] + digest
    }
}

/// The reason why an fs-verity digest could not be signed.
public enum VeritySignatureError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text contains no private key that libcrypto can read.
    case noKey
    /// The private key is encrypted with a passphrase.
    case encryptedKey
    case noCertificate
    /// The certificate belongs to another key.
    case mismatch
    /// The type of the key does not support PKCS#7 signatures, for example Ed25519.
    case unusableKey(String)
    case failed(String)

    public var description: String {
        switch self {
        case .noKey: "holds no private key in PEM or DER"
        case .encryptedKey: "the private key is encrypted; decrypt it first, with openssl pkey -in FILE -out NEW"
        case .noCertificate: "holds no X.509 certificate in PEM or DER"
        case .mismatch: "the certificate does not belong to the private key"
        case .unusableKey(let why): "the private key cannot make PKCS#7 signatures (\(why)); RSA and ECDSA keys can"
        case .failed(let why): "libcrypto could not sign: \(why)"
        }
    }
}

/// Signs with a private key and its certificate. The kernel must have the certificate in its `.fs-verity` keyring.
///
/// The messages identify the certificate by issuer and serial number and do not contain it: the kernel finds it that way, and every object
/// needs its own message.
public final class VerityKeySigner: VeritySigner, @unchecked Sendable {
    // libcrypto's reference counts are atomic, and nothing changes after `init`.
    private let key: OpaquePointer
    private let certificate: OpaquePointer

    /// - Parameters:
    ///   - keyBytes: A private key in PEM or DER, not encrypted.
    ///   - certificateBytes: An X.509 certificate in PEM or DER. It may be the same file as the key.
    /// - Throws: `VeritySignatureError`, also when the key cannot make PKCS#7 signatures.
    public init(key keyBytes: [UInt8], certificate certificateBytes: [UInt8]) throws(VeritySignatureError) {
        let key = try Self.readKey(keyBytes)
        guard let certificate = Self.readCertificate(certificateBytes) else {
            EVP_PKEY_free(key)
            throw .noCertificate
        }
        // From here on deinit frees both, even if this initialiser throws.
        self.key = key
        self.certificate = certificate
        guard X509_check_private_key(certificate, key) == 1 else {
            ERR_clear_error()
            throw .mismatch
        }
        // Signs a sample, so that an unusable key is reported before anything is stored.
        guard let probe = ObjectID(algorithm: .sha256, bytes: [UInt8](repeating: 0, count: 32)) else { return }
        do throws(VeritySignatureError) {
            _ = try signature(of: probe)
        } catch {
            if case .failed(let why) = error { throw .unusableKey(why) }
            throw error
        }
    }

    deinit {
        EVP_PKEY_free(key)
        X509_free(certificate)
    }

    public func signature(of id: ObjectID) throws(VeritySignatureError) -> [UInt8] {
        let flags = PKCS7_BINARY | PKCS7_DETACHED | PKCS7_NOATTR | PKCS7_NOCERTS
        return try VeritySignature.message(for: id).span.withUnsafeBytes { (message) throws(VeritySignatureError) in
            guard let content = BIO_new_mem_buf(message.baseAddress, Int32(truncatingIfNeeded: message.count)) else {
                throw Self.failure()
            }
            defer { BIO_free(content) }
            guard let signed = PKCS7_sign(nil, nil, nil, nil, flags | PKCS7_PARTIAL) else { throw Self.failure() }
            defer { PKCS7_free(signed) }
            let method = id.algorithm == .sha256 ? EVP_sha256() : EVP_sha512()
            guard PKCS7_sign_add_signer(signed, certificate, key, method, flags) != nil, PKCS7_final(signed, content, flags) == 1 else {
                throw Self.failure()
            }
            var der: UnsafeMutablePointer<UInt8>?
            let count = i2d_PKCS7(signed, &der)
            guard count > 0, let start = der else { throw Self.failure() }
            defer { CRYPTO_free(start, nil, 0) }
            guard count <= VeritySignature.sizeLimit else { throw .failed("the message has \(count) bytes, over the kernel's limit") }
            return Array(UnsafeBufferPointer(start: start, count: Int(count)))
        }
    }

    // MARK: Reading

    private static func readKey(_ bytes: [UInt8]) throws(VeritySignatureError) -> OpaquePointer {
        defer { ERR_clear_error() }
        var wasAsked = false
        let key = withBuffer(bytes) { buffer in
            // libcrypto asks this callback for the passphrase of an encrypted key. It has none and does not ask on a terminal.
            PEM_read_bio_PrivateKey(
                buffer, nil,
                { _, _, _, context in
                    context?.assumingMemoryBound(to: Bool.self).pointee = true
                    return -1
                }, &wasAsked) ?? Self.again(buffer) { d2i_PrivateKey_bio($0, nil) }
        }
        if let key { return key }
        throw wasAsked ? .encryptedKey : .noKey
    }

    private static func readCertificate(_ bytes: [UInt8]) -> OpaquePointer? {
        defer { ERR_clear_error() }
        return withBuffer(bytes) { buffer in
            PEM_read_bio_X509(buffer, nil, { _, _, _, _ in -1 }, nil) ?? Self.again(buffer) { d2i_X509_bio($0, nil) }
        }
    }

    private static func withBuffer(_ bytes: [UInt8], _ body: (OpaquePointer) -> OpaquePointer?) -> OpaquePointer? {
        bytes.withUnsafeBytes { bytes in
            guard !bytes.isEmpty, let count = Int32(exactly: bytes.count), let buffer = BIO_new_mem_buf(bytes.baseAddress, count) else {
                return nil
            }
            defer { BIO_free(buffer) }
            return body(buffer)
        }
    }

    private static func again(_ buffer: OpaquePointer, _ body: (OpaquePointer) -> OpaquePointer?) -> OpaquePointer? {
        guard BIO_ctrl(buffer, BIO_CTRL_RESET, 0, nil) == 1 else { return nil }
        return body(buffer)
    }

    /// The most recent error of libcrypto.
    private static func failure() -> VeritySignatureError {
        defer { ERR_clear_error() }
        let code = ERR_peek_last_error()
        guard let reason = ERR_reason_error_string(code) else { return .failed("error \(code)") }
        return .failed(String(cString: reason))
    }
}
