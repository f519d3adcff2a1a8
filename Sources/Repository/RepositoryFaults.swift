import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
public import ComposefsLinuxSystem

// The reasons inside a `RepositoryError`: one case for each, with its values. The sentences are made here only.

/// Why nothing can be written to a repository.
public enum ReadOnlyReason: Sendable, CustomStringConvertible {
    /// The handle was opened with `OpenOptions.readOnly`.
    case openedReadOnly
    /// `meta.json` lists features that only a later release can keep up.
    case unknownFeatures([String])
    case readOnlyFileSystem
    /// The process may not write to the repository's directory.
    case access(SystemError)
    /// Another process holds the repository's lock.
    case usedByAnotherProcess
    /// The same handle is storing objects, which a collection would remove.
    case storing

    public var description: String {
        switch self {
        case .openedReadOnly: "it was opened for reading only"
        case .unknownFeatures(let names):
            "meta.json lists features this release cannot write: " + names.map { ByteString($0).description }.joined(separator: ", ")
        case .readOnlyFileSystem: "read-only file system"
        case .access(let error): "\(error)"
        case .usedByAnotherProcess: "another process uses it"
        case .storing: "this handle is storing objects, which would be collected"
        }
    }
}

/// Why bytes cannot be the name of a stream, an image or a reference.
public enum NameFault: Sendable, Hashable, CustomStringConvertible {
    /// `refs` is the directory of references.
    case reserved
    /// Only references may contain a slash.
    case slash
    case emptyComponent
    /// A component is longer than file systems allow.
    case componentTooLong(limit: Int)
    case containsNUL
    /// `.` or `..`.
    case dots
    /// A staged stream's name begins with a dot.
    case leadingDot
    /// `.leases` is the directory of leases.
    case leases

    public var description: String {
        switch self {
        case .reserved: "`refs` is the directory of references"
        case .slash: "a `/` is only allowed in references"
        case .emptyComponent: "a component is empty"
        case .componentTooLong(let limit): "a component is longer than \(limit) bytes"
        case .containsNUL: "it holds a NUL byte"
        case .dots: "`.` and `..` are not names"
        case .leases: "`.leases` is the directory of leases"
        case .leadingDot: "a staged stream's must not begin with a dot"
        }
    }
}

/// Why a file outside of the repository cannot be imported.
public enum SourceFault: Sendable, CustomStringConvertible {
    /// The file's size or times changed while it was read; both sizes in bytes if these differ.
    case changed(expected: UInt64, read: UInt64)
    /// Another file took its place after the directory was read.
    case replaced
    /// Images hold no files of its type.
    case unsupportedType
    /// The tree cannot hold it.
    case tree(FileTreeError)
    /// An object of another repository has other content than its name states; the actual digest, nil if it has no fs-verity.
    case damaged(actual: ObjectID?)

    public var description: String {
        switch self {
        case .changed(let expected, let read) where expected != read:
            "it changed while being read: \(expected) bytes were expected, \(read) read"
        case .changed: "it changed while being read"
        case .replaced: "it was replaced while the directory was being read"
        case .unsupportedType: "it is of a type that no image can hold"
        case .tree(let error): "\(error)"
        case .damaged(let actual?): "it is damaged: its content has the digest \(actual)"
        case .damaged(nil): "it is damaged: it has no fs-verity"
        }
    }
}

/// Why a file cannot be signed, or why the kernel refuses a signature (fs/verity/signature.c, crypto/asymmetric_keys).
public enum SignatureFault: Sendable, Hashable, CustomStringConvertible {
    /// The file is too large for a private key or a certificate; the limit in bytes.
    case fileTooLarge(limit: Int)
    /// The key or the certificate cannot be used, or nothing could be signed with it.
    case signer(VeritySignatureError)
    /// The repository has no fs-verity, so signatures have no meaning.
    case nothingToSign
    /// ENOKEY: the kernel's keyring lacks the certificate.
    case unknownCertificate
    /// EKEYREJECTED.
    case rejected
    /// EBADMSG: no PKCS#7 message that the kernel accepts.
    case malformed
    /// ENOPKG: the kernel lacks the algorithm.
    case unsupportedAlgorithm
    /// EMSGSIZE; the kernel's limit in bytes.
    case tooLong(limit: Int)
    /// EPERM: fs.verity.require_signatures is 1, and the file has no signature.
    case missing

    public var description: String {
        switch self {
        case .fileTooLarge(let limit): "is no key or certificate: it has \(limit) bytes or more"
        case .signer(let error): "\(error)"
        case .nothingToSign: "the repository has no fs-verity, so there is nothing that could be signed"
        case .unknownCertificate:
            "the certificate of its fs-verity signature is not in the kernel's .fs-verity keyring; "
                + "openssl x509 -in CERT -outform der | keyctl padd asymmetric '' %keyring:.fs-verity adds it"
        case .rejected:
            "the kernel rejects its fs-verity signature: it is of other content, or of another key than its certificate's"
        case .malformed:
            "its fs-verity signature is no PKCS#7 message that the kernel takes: in DER, detached, without signed attributes"
        case .unsupportedAlgorithm:
            "the kernel lacks the algorithm of its fs-verity signature; RSA with SHA-256 or SHA-512 is known to most"
        case .tooLong(let limit): "its fs-verity signature is longer than the \(limit) bytes that the kernel takes"
        case .missing:
            "it has no fs-verity signature, and the kernel's fs.verity.require_signatures is 1; set that to 0 for as long as it takes to store "
                + "it again, signed"
        }
    }
}
