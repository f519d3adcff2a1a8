// SignaturePolicy: containers-policy.json(5), which says which images a machine accepts and which signatures they need.
//
// The module does no I/O and knows no source of images: the caller reads the policy, the files with keys and the signatures, and describes the image.
//
// - `ImagePolicy` is a parsed policy: `PolicyRequirement`s by `PolicyScope`. `ImageIdentity` is what scopes are compared with.
// - `SignedIdentity` compares the reference that a signature states with that of the image.
// - `SignatureClaim` is the signed document ("simple signing"), and `ImageSignature` a signature that is still to be checked.
// - `LoadedPolicy` is a policy with its keys, and `SignatureDemands` decides about one image; `SignatureRefusal` says why not.

public import ComposefsBytes
internal import ComposefsJSON

/// A policy: what is required of images, by transport and scope.
public struct ImagePolicy: Hashable, Sendable {
    /// Requirements that apply if no scope matches; never empty.
    let defaults: [PolicyRequirement]
    /// By transport and scope. The empty scope is the default of its transport.
    let transports: [ByteString: [ByteString: [PolicyRequirement]]]

    /// The largest policy, in bytes.
    public static let sizeLimit = 4 << 20
    /// The most values of a policy: each takes more memory than its bytes.
    private static let valueLimit = 200_000

    /// Parses a policy as strictly as the container tools do: a member that is unknown, that occurs twice or that is not valid is an error.
    public init(parsing bytes: [UInt8]) throws(SignaturePolicyFault) {
        guard bytes.count <= Self.sizeLimit else { throw SignaturePolicyFault("", .tooLarge(limit: Self.sizeLimit)) }
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes, limits: JSONLimits(values: Self.valueLimit)) } catch {
            throw SignaturePolicyFault("", .json(error.description))
        }
        self = try PolicyParser.policy(value)
    }

    init(defaults: [PolicyRequirement], transports: [ByteString: [ByteString: [PolicyRequirement]]]) {
        self.defaults = defaults
        self.transports = transports
    }

    /// The requirements for an image: those of the most specific scope, else the default of its transport, else the global default.
    public func requirements(for image: ImageIdentity) -> (scope: PolicyScope, requirements: [PolicyRequirement]) {
        let transport = ByteString(image.transport)
        if !transport.isEmpty, let scopes = transports[transport] {
            for scope in image.scopes where !scope.isEmpty {
                if let found = scopes[scope] { return (.scope(scope, transport: image.transport), found) }
            }
            if let found = scopes[""] { return (.transport(image.transport), found) }
        }
        return (.global, defaults)
    }

    /// The files with public keys that the policy names.
    public var keyFiles: Set<ByteString> {
        let all = defaults + transports.values.flatMap { $0.values.flatMap(\.self) }
        return all.reduce(into: []) { files, requirement in
            guard case .sigstoreSigned(let signed) = requirement else { return }
            for case .file(let path) in signed.keys { files.insert(path) }
        }
    }
}

/// The part of a policy that applies to an image.
public enum PolicyScope: Hashable, Sendable, CustomStringConvertible {
    /// `default`
    case global
    /// The empty scope of a transport.
    case transport(String)
    case scope(ByteString, transport: String)

    public var description: String {
        switch self {
        case .global: "the default"
        case .transport(let transport): "the default of the transport \(transport)"
        case .scope(let scope, let transport): "the scope \"\(scope)\" of the transport \(transport)"
        }
    }
}

/// One requirement of a policy. An image is accepted if it satisfies all of its scope.
public enum PolicyRequirement: Hashable, Sendable {
    case insecureAcceptAnything
    case reject
    case sigstoreSigned(SigstoreRequirement)
    /// A requirement that this program cannot check.
    case uncheckable(UncheckableRequirement)
}

/// A signature by one of several public keys, for an identity.
public struct SigstoreRequirement: Hashable, Sendable {
    /// A public key in PEM.
    public enum Key: Hashable, Sendable {
        /// The path of its file.
        case file(ByteString)
        /// Its bytes, from the policy.
        case data([UInt8])
    }

    /// At least one; a signature by any of them is enough.
    public var keys: [Key]
    public var identity: SignedIdentity

    public init(keys: [Key], identity: SignedIdentity) {
        self.keys = keys
        self.identity = identity
    }
}

/// Why a requirement cannot be checked.
public enum UncheckableRequirement: Hashable, Sendable, CaseIterable, CustomStringConvertible {
    /// `signedBy`
    case gpg
    /// `signedBaseLayer`
    case baseLayer
    /// `sigstoreSigned` with `fulcio`: certificates for one signature.
    case fulcio
    /// `sigstoreSigned` with `pki`: certificates of an authority.
    case pki
    /// `sigstoreSigned` with a key of a transparency log.
    case rekor

    public var description: String {
        switch self {
        case .gpg: "a GPG signature (signedBy)"
        case .baseLayer: "a signed base layer (signedBaseLayer)"
        case .fulcio: "a sigstore signature with a Fulcio certificate (sigstoreSigned, fulcio)"
        case .pki: "a sigstore signature with a certificate of an authority (sigstoreSigned, pki)"
        case .rekor: "a sigstore signature with an entry in a Rekor log (sigstoreSigned, rekorPublicKey)"
        }
    }
}
