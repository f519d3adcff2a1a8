public import ComposefsBytes
public import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// Built-in signatures of fs-verity: the kernel compares a PKCS#7 signature of a file's digest with its `.fs-verity` keyring when fs-verity
// is enabled and whenever the file is opened. With fs.verity.require_signatures = 1 it opens no file without a signature.
//
// A signature cannot be added later: fs-verity is enabled once. An object that lacks one is therefore replaced by a signed copy, in one
// step. So is `meta.json`, whose fs-verity makes the repository secure: a kernel that requires signatures would not open it otherwise.

/// The signer of a handle, and counts of what it signed.
struct Signing: ~Copyable {
    /// Signatures that came with an image, for objects that may be stored later.
    let offered = Mutex<[ObjectID: [UInt8]]>([:])
    let hasOffers = Atomic<Bool>(false)
    let signed = Atomic<Int>(0)
    let unknown = Atomic<Int>(0)
    let hasCheckedMetadata = Atomic<Bool>(false)
}

/// How many signatures a handle made and left out.
public struct SignatureCounts: Hashable, Sendable, Codable {
    /// Objects that this handle signed.
    public var signed = 0
    /// Signatures that came with an image and were left out because the kernel does not know their certificate.
    public var unknown = 0

    public init() {}

    package static func - (after: SignatureCounts, before: SignatureCounts) -> SignatureCounts {
        var difference = after
        difference.signed -= before.signed
        difference.unknown -= before.unknown
        return difference
    }
}

/// Reads the private key and the certificate of a signer, each in PEM or DER.
///
/// - Throws: `RepositoryError.signature`, which names the file, if one cannot be used or they do not belong together.
public func readSigner(keyFile: ByteString, certificateFile: ByteString) throws(RepositoryError) -> VerityKeySigner {
    let key = try signerFile(keyFile)
    let certificate = try signerFile(certificateFile)
    do throws(VeritySignatureError) {
        return try VerityKeySigner(key: key, certificate: certificate)
    } catch {
        switch error {
        case .noCertificate, .mismatch: throw .signature(certificateFile, .signer(error))
        default: throw .signature(keyFile, .signer(error))
        }
    }
}

private func signerFile(_ path: ByteString) throws(RepositoryError) -> [UInt8] {
    let limit = 1 << 20
    // A pipe, such as `<(…)` of the shell, is read like a file.
    let file = try system { () throws(SystemError) in try FileDescriptor.open(path, [.readOnly]) }
    let bytes = try system { () throws(SystemError) in try file.readAll(limit: limit) }
    guard bytes.count < limit else { throw .signature(path, .fileTooLarge(limit: limit)) }
    return bytes
}

extension Repository {
    /// What this handle has signed so far.
    public var signatureCounts: SignatureCounts {
        var counts = SignatureCounts()
        counts.signed = signing.signed.load(ordering: .relaxed)
        counts.unknown = signing.unknown.load(ordering: .relaxed)
        return counts
    }

    /// Whether this handle signs what it stores.
    package var signsObjects: Bool { options.signer != nil }

    /// The PKCS#7 signature that an object was stored with; nil if it has none.
    public func signature(ofObject id: ObjectID) throws(RepositoryError) -> [UInt8]? {
        let file = try openObject(id, verify: false)
        return try system { () throws(SystemError) in try file.veritySignature() }
    }

    /// Offers signatures for objects that this handle may store from now on, by object. The handle's own signer takes precedence. A
    /// signature whose certificate the kernel does not know is left out and counted; a wrong one is an error when its object is stored.
    package func offerSignatures(_ signatures: [ObjectID: [UInt8]]) {
        guard isSecure, !signatures.isEmpty else { return }
        signing.offered.withLock { $0.merge(signatures) { _, new in new } }
        signing.hasOffers.store(true, ordering: .sequentiallyConsistent)
    }

    // MARK: Storing

    func wantsSignature(_ id: ObjectID) -> Bool { options.signer != nil || offeredSignature(id) != nil }

    private func offeredSignature(_ id: ObjectID) -> [UInt8]? {
        guard signing.hasOffers.load(ordering: .relaxed) else { return nil }
        return signing.offered.withLock { $0[id] }
    }

    func isSigned(_ file: borrowing FileDescriptor) throws(RepositoryError) -> Bool {
        try system { () throws(SystemError) in try file.veritySignature() != nil }
    }

    /// Makes a temporary immutable, with a signature if there is one. Returns whether it is signed.
    func enableVerity(on temporary: inout Temporary, _ id: ObjectID, at path: ByteString) throws(RepositoryError) -> Bool {
        let own = try options.signer.map { (signer) throws(RepositoryError) in try makeSignature(of: id, signer, path) }
        if let signature = own ?? offeredSignature(id) {
            if try enableVerity(on: &temporary, signature, at: path, leavingUnknown: own == nil) {
                return true
            }
            signing.unknown.add(1, ordering: .relaxed)
        }
        _ = try enableVerity(on: &temporary, nil, at: path, leavingUnknown: false)
        return false
    }

    /// Returns false if the kernel knows no certificate for the signature and that is no error.
    private func enableVerity(
        on temporary: inout Temporary, _ signature: [UInt8]?, at path: ByteString, leavingUnknown: Bool
    ) throws(RepositoryError) -> Bool {
        let isSupported: Bool
        do throws(SystemError) {
            isSupported = try temporary.enableVerity(algorithm, signature: signature, in: root)
        } catch {
            if leavingUnknown, error.errno == .noKey || error.errno == .noPackage { return false }
            throw RepositoryError(enablingVerity: error, on: self.path + "/" + path)
        }
        guard isSupported else { throw .verityUnsupported(self.path) }
        return true
    }

    /// Called before a file replaces a good one: content that a power cut can still take must not replace durable content.
    func prepareReplacement(_ temporary: borrowing Temporary) throws(RepositoryError) {
        do throws(SystemError) {
            try temporary.file.sync()
        } catch {
            condemn()
            throw .system(error)
        }
    }

    // MARK: Signing existing files

    /// How many objects are copied before one sync makes them durable: as many descriptors are open.
    private static let batch = 64

    /// Signs the objects that have no signature: a signed copy replaces each. Does nothing without a signer.
    ///
    /// - Throws: `RepositoryError` if an object is missing or damaged, or the kernel does not open it.
    package func signObjects(_ ids: Set<ObjectID>) throws(RepositoryError) {
        guard options.signer != nil, !ids.isEmpty else { return }
        try beginStoring()
        defer { endStoring() }
        let all = ids.sorted()
        let batches = stride(from: 0, to: all.count, by: Self.batch).map { Array(all[$0..<min($0 + Self.batch, all.count)]) }
        let faults = parallelMap(batches, threads: Host.processorCount) { batch -> RepositoryError? in
            do throws(RepositoryError) {
                try self.sign(batch)
                return nil
            } catch {
                return error
            }
        }
        if let fault = faults.lazy.compactMap(\.self).first { throw fault }
    }

    private func sign(_ ids: [ObjectID]) throws(RepositoryError) {
        var copies: [SignedCopy] = []
        for id in ids {
            let path = Layout.objectPath(id)
            let file = try openForReading(id, at: path)
            if let fault = try fault(of: file, id) { throw .objectDamaged(id, fault) }
            if try isSigned(file) { continue }
            let status = try system { () throws(SystemError) in try file.status() }
            copies.append(try signedCopy(of: file, id, at: path, try makeTemporary(mode: status.permissions & 0o644)))
        }
        guard !copies.isEmpty else { return }
        try sync()
        for copy in copies { try copy.replaceOriginal(in: root) }
        activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
        signing.signed.add(copies.count, ordering: .relaxed)
    }

    /// As above for `meta.json`, by a handle that is about to store signed objects.
    func signMetadata() throws(RepositoryError) {
        guard options.signer != nil, !signing.hasCheckedMetadata.load(ordering: .relaxed) else { return }
        let file = try system { () throws(SystemError) in try root.open(at: Layout.metadata, [.readOnly, .noFollow]) }
        if try !isSigned(file) {
            guard let id = try system({ () throws(SystemError) in try measuredVerity(file) }) else { throw .insecure(path) }
            let temporary = try system { () throws(SystemError) in
                try Temporary.make(in: root, directory: ".", named: Layout.symlinkPrefix, mode: 0o644)
            }
            let copy = try signedCopy(of: file, id, at: Layout.metadata, temporary)
            try system { () throws(SystemError) in try copy.temporary.file.sync() }
            try copy.replaceOriginal(in: root)
            try system { () throws(SystemError) in try root.sync() }
        }
        signing.hasCheckedMetadata.store(true, ordering: .relaxed)
    }

    private func signedCopy(
        of file: borrowing FileDescriptor, _ id: ObjectID, at path: ByteString, _ temporary: consuming Temporary
    ) throws(RepositoryError) -> SignedCopy {
        let copy = SignedCopy(path: path, temporary: temporary)
        try system { () throws(SystemError) in
            do throws(SystemError) {
                try copy.temporary.file.cloneContent(from: file)
            } catch {
                try copy.temporary.fill(from: file)
            }
            // The stream of a layer has an extended attribute that records the verified diff ID.
            for attribute in try file.extendedAttributes() where attribute.name.hasPrefix("user.") {
                try copy.temporary.file.setExtendedAttribute(attribute.name, attribute.value)
            }
        }
        _ = try enableVerity(on: &copy.temporary, id, at: path)
        let measured = try system { () throws(SystemError) in try measuredVerity(copy.temporary.file) }
        guard measured == id else { throw .objectDamaged(id, .copyDiffers) }
        return copy
    }
}

/// A new file, and the name of the file that it will replace.
private final class SignedCopy {
    let path: ByteString
    var temporary: Temporary

    init(path: ByteString, temporary: consuming Temporary) {
        self.path = path
        self.temporary = temporary
    }

    func replaceOriginal(in root: borrowing RootedDirectory) throws(RepositoryError) {
        try system { () throws(SystemError) in try temporary.replace(in: root, at: path) }
    }
}

func makeSignature(of id: ObjectID, _ signer: any VeritySigner, _ path: ByteString) throws(RepositoryError) -> [UInt8] {
    do throws(VeritySignatureError) {
        return try signer.signature(of: id)
    } catch {
        throw .signature(path, .signer(error))
    }
}

extension RepositoryMetadata {
    /// The fs-verity digest of the file as it is written.
    var objectID: ObjectID { serialized().withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) } }
}

// MARK: - What the kernel says

extension RepositoryError {
    /// A failed system call; one that failed because of a signature becomes `.signature`.
    init(_ error: SystemError) {
        if error.operation == "open", let fault = signatureFault(error.errno, isEnabling: false) {
            self = .signature(error.path, fault)
        } else {
            self = .system(error)
        }
    }

    init(enablingVerity error: SystemError, on path: ByteString) {
        if error.errno == .notPermitted, Host.veritySignatures() == .required {
            self = .signatureNeeded(path)
        } else if let fault = signatureFault(error.errno, isEnabling: true) {
            self = .signature(path, fault)
        } else {
            self = .system(error)
        }
    }
}

/// The kernel's answers about signatures (fs/verity/signature.c, crypto/asymmetric_keys); nil for others.
private func signatureFault(_ errno: Errno, isEnabling: Bool) -> SignatureFault? {
    switch errno {
    case .noKey: .unknownCertificate
    case .keyRejected: .rejected
    case .badMessage where isEnabling || Host.veritySignatures() != .unchecked: .malformed
    case .noPackage: .unsupportedAlgorithm
    case .messageTooLong: .tooLong(limit: VeritySignature.sizeLimit)
    case .notPermitted where Host.veritySignatures() == .required: .missing
    default: nil
    }
}
