internal import ComposefsCOpenSSL

/// A public key that verifies signatures as sigstore's tools make them: ECDSA and RSA (PKCS #1 v1.5) over SHA-256, or Ed25519.
public final class VerificationKey: @unchecked Sendable {
    // libcrypto's reference counts are atomic, and nothing changes after `init`.
    private let key: OpaquePointer
    /// Whether the algorithm signs the message itself and no digest of it.
    private let signsMessages: Bool

    /// - Parameter bytes: a public key in PEM (`BEGIN PUBLIC KEY`, RFC 7468).
    public init(pem bytes: [UInt8]) throws(VerificationKeyError) {
        defer { ERR_clear_error() }
        let read = bytes.withUnsafeBytes { bytes -> OpaquePointer? in
            guard !bytes.isEmpty, let count = Int32(exactly: bytes.count), let buffer = BIO_new_mem_buf(bytes.baseAddress, count) else {
                return nil
            }
            defer { BIO_free(buffer) }
            return PEM_read_bio_PUBKEY(buffer, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let read else { throw .noKey }
        let type = EVP_PKEY_get_base_id(read)
        guard [EVP_PKEY_EC, EVP_PKEY_RSA, EVP_PKEY_ED25519].contains(type) else {
            let name = EVP_PKEY_get0_type_name(read).map { String(cString: $0) } ?? "type \(type)"
            EVP_PKEY_free(read)
            throw .unsupported(name)
        }
        key = read
        signsMessages = type == EVP_PKEY_ED25519
    }

    deinit { EVP_PKEY_free(key) }

    /// Whether the signature is one of the message by this key. ECDSA signatures are in DER.
    public func verifies(_ signature: [UInt8], of message: [UInt8]) -> Bool {
        defer { ERR_clear_error() }
        guard !signature.isEmpty, let context = EVP_MD_CTX_new() else { return false }
        defer { EVP_MD_CTX_free(context) }
        guard EVP_DigestVerifyInit(context, nil, signsMessages ? nil : EVP_sha256(), nil, key) == 1 else { return false }
        // Negative for a malformed signature.
        return EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
    }
}

/// Why a public key cannot be used.
public enum VerificationKeyError: Error, Hashable, Sendable, CustomStringConvertible {
    case noKey
    /// The type, as libcrypto names it.
    case unsupported(String)

    public var description: String {
        switch self {
        case .noKey: "it holds no public key in PEM (BEGIN PUBLIC KEY)"
        case .unsupported(let type): "keys of the type \(type) are not supported; EC, RSA and Ed25519 keys are"
        }
    }
}
