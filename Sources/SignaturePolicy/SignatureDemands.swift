public import ComposefsBytes
public import ComposefsHashing
internal import ComposefsOCIModel

/// A policy, with the name of its file and the content of the files with keys that it names.
public struct LoadedPolicy: Sendable {
    /// A file with a public key.
    public enum KeyFile: Sendable, Hashable {
        case content([UInt8])
        /// Why it could not be read. That is an error only if an image needs the key.
        case unreadable(String)
    }

    public let file: ByteString
    public let policy: ImagePolicy
    private let keyFiles: [ByteString: KeyFile]

    /// - Parameters:
    ///   - file: the name in messages.
    ///   - readKey: reads a file that the policy names.
    /// - Throws: `SignaturePolicyError`.
    public init(file: ByteString, parsing bytes: [UInt8], readKey: (ByteString) -> KeyFile) throws(SignaturePolicyError) {
        let policy: ImagePolicy
        do throws(SignaturePolicyFault) { policy = try ImagePolicy(parsing: bytes) } catch {
            throw SignaturePolicyError(file: file, fault: error)
        }
        self.file = file
        self.policy = policy
        var files: [ByteString: KeyFile] = [:]
        for path in policy.keyFiles { files[path] = readKey(path) }
        keyFiles = files
    }

    /// What the policy demands of an image.
    ///
    /// - Parameter name: the image in messages.
    /// - Throws: `SignatureRefusal` if the policy accepts no such image, or demands what cannot be checked, whatever signatures there are.
    public func demands(of image: ImageIdentity, named name: ByteString) throws(SignatureRefusal) -> SignatureDemands {
        let (scope, requirements) = policy.requirements(for: image)
        func refuse(_ reason: SignatureRefusal.Reason) -> SignatureRefusal {
            SignatureRefusal(image: name, file: file, scope: scope, reason: reason)
        }
        var pending: [SignatureDemands.Demand] = []
        for requirement in requirements {
            switch requirement {
            case .insecureAcceptAnything: break
            case .reject: throw refuse(.rejected)
            case .uncheckable(let what): throw refuse(.uncheckable(what))
            case .sigstoreSigned(let signed):
                var keys: [VerificationKey] = []
                for key in signed.keys {
                    do throws(KeyFault) { keys.append(try verificationKey(key)) } catch { throw refuse(error.reason) }
                }
                pending.append(SignatureDemands.Demand(keys: keys, identity: signed.identity))
            }
        }
        return SignatureDemands(image: image, name: name, file: file, scope: scope, demands: pending)
    }

    private struct KeyFault: Error {
        var reason: SignatureRefusal.Reason
    }

    private func verificationKey(_ key: SigstoreRequirement.Key) throws(KeyFault) -> VerificationKey {
        let bytes: [UInt8]
        var path: ByteString?
        switch key {
        case .data(let data): bytes = data
        case .file(let file):
            path = file
            switch keyFiles[file] {
            case .content(let content): bytes = content
            case .unreadable(let why): throw KeyFault(reason: .keyUnreadable(why))
            case nil: preconditionFailure("a key file of the policy was not read")
            }
        }
        do throws(VerificationKeyError) { return try VerificationKey(pem: bytes) } catch {
            throw KeyFault(reason: .keyInvalid(path, error))
        }
    }
}

/// What a policy demands of one image, and how much of it the signatures so far have met.
public struct SignatureDemands: Sendable {
    struct Demand: Sendable {
        var keys: [VerificationKey]
        var identity: SignedIdentity
        var isMet = false
        var faults: [ImageSignatureFault] = []
    }

    let image: ImageIdentity
    let name: ByteString
    let file: ByteString
    let scope: PolicyScope
    private var demands: [Demand]

    init(image: ImageIdentity, name: ByteString, file: ByteString, scope: PolicyScope, demands: [Demand]) {
        self.image = image
        self.name = name
        self.file = file
        self.scope = scope
        self.demands = demands
    }

    /// Whether no further signature is needed.
    public var areMet: Bool { demands.allSatisfy(\.isMet) }

    /// Checks a signature of the image.
    ///
    /// - Parameter manifest: the bytes of the manifest that is used.
    public mutating func offer(_ signature: ImageSignature, for manifest: [UInt8]) {
        for index in demands.indices where !demands[index].isMet {
            do throws(ImageSignatureFault) {
                try check(signature, manifest, demands[index])
                demands[index].isMet = true
            } catch {
                demands[index].faults.append(error)
            }
        }
    }

    /// Records a signature that could not be read.
    public mutating func note(unreadable reason: String) {
        for index in demands.indices where !demands[index].isMet { demands[index].faults.append(.unreadable(reason)) }
    }

    private func check(_ signature: ImageSignature, _ manifest: [UInt8], _ demand: Demand) throws(ImageSignatureFault) {
        guard let text = signature.signature else { throw .noSignature }
        guard let bytes = Base64.decode(text.utf8) else { throw .notBase64 }
        // Nothing in the document is believed, or even parsed, before the signature is good.
        guard demand.keys.contains(where: { $0.verifies(bytes, of: signature.payload) }) else { throw .otherKey }
        let claim = try SignatureClaim(parsing: signature.payload)
        guard ContentDigest.of(manifest, claim.digest.algorithm) == claim.digest else { throw .otherDigest(claim.digest.description) }
        guard demand.identity.accepts(claim.reference, for: image.reference) else {
            throw .otherReference(quoted(claim.reference), demand.identity)
        }
    }

    /// The refusal if demands are left; nil if they are met.
    ///
    /// - Parameters:
    ///   - manifest: the digest of the manifest.
    ///   - isListed: whether an index lists the manifest, and the reference names the index.
    public func refusal(of manifest: ContentDigest, isListed: Bool) -> SignatureRefusal? {
        guard let unmet = demands.first(where: { !$0.isMet }) else { return nil }
        let reason: SignatureRefusal.Reason =
            unmet.faults.isEmpty
            ? .unsigned(manifest, isListed: isListed) : .notAccepted(manifest, unmet.faults, isListed: isListed)
        return SignatureRefusal(image: name, file: file, scope: scope, reason: reason)
    }
}

/// An image that a policy does not accept.
public struct SignatureRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        case rejected
        case uncheckable(UncheckableRequirement)
        /// A key could not be read, and why.
        case keyUnreadable(String)
        /// The file, or nil for a key in the policy.
        case keyInvalid(ByteString?, VerificationKeyError)
        /// The manifest, and whether the reference names an index that lists it.
        case unsigned(ContentDigest, isListed: Bool)
        case notAccepted(ContentDigest, [ImageSignatureFault], isListed: Bool)
    }

    public var image: ByteString
    /// The file of the policy.
    public var file: ByteString
    public var scope: PolicyScope
    public var reason: Reason

    /// The most faults that a message lists.
    private static let shownFaults = 3

    public var description: String { "\(image): refused by the signature policy \(file): \(scope) \(text)" }

    private var text: String {
        switch reason {
        case .rejected: "rejects all images"
        case .uncheckable(let what): "demands \(what), which cannot be checked"
        case .keyUnreadable(let why): "demands a signature, and its key cannot be read: \(why)"
        case .keyInvalid(let file, let error):
            "demands a signature, and \(file.map { "\($0)" } ?? "the key in the policy") cannot be used: \(error)"
        case .unsigned(let digest, let isListed):
            "demands a sigstore signature of \(Self.named(digest, isListed)), and there is none"
        case .notAccepted(let digest, let faults, let isListed):
            "demands a sigstore signature of \(Self.named(digest, isListed)), and none of those found (\(faults.count)) is accepted: "
                + Self.list(faults)
        }
    }

    private static func list(_ faults: [ImageSignatureFault]) -> String {
        var shown: [String] = []
        for fault in faults.map(\.description) where !shown.contains(fault) && shown.count < shownFaults { shown.append(fault) }
        return shown.joined(separator: "; ")
    }

    private static func named(_ digest: ContentDigest, _ isListed: Bool) -> String {
        isListed ? "the manifest \(digest) itself, not of the index that lists it" : "the manifest \(digest)"
    }
}
