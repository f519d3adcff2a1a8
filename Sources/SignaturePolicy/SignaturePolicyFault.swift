public import ComposefsBytes
internal import ComposefsOCIModel

/// What is wrong with a policy.
public struct SignaturePolicyFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// The member: `transports.docker["quay.io"][0].keyPath`; empty for the document.
    public var location: String
    public var reason: Reason

    init(_ location: String, _ reason: Reason) {
        self.location = location
        self.reason = reason
    }

    public enum Reason: Hashable, Sendable {
        case json(String)
        /// In bytes.
        case tooLarge(limit: Int)
        /// The kinds of value, with an article.
        case wrongType(found: String, wanted: String)
        case missing
        case unknownMember
        case noRequirements
        case unknownRequirement(String)
        case unknownIdentity(String)
        case unknownKeyType(String)
        case emptyText
        case emptyList
        case notBase64
        /// Exactly one of these members is needed; how many there are.
        case notOne(of: [String], found: Int)
        /// At most one of these members is allowed.
        case several(of: [String])
        case noneOf([String])
        case notReference(String)
        /// The reference has neither tag nor digest.
        case nameOnly(String)
        case notPrefix(String)
        case scope(ScopeFault)
    }

    public var description: String { location.isEmpty ? reason.text : "\(location): \(reason.text)" }
}

/// Why a scope does not belong to its transport.
public enum ScopeFault: Hashable, Sendable, CustomStringConvertible {
    case notAbsolute
    case root
    case notCanonical
    /// The transport has only its default, the empty scope.
    case onlyDefault
    case digest
    case notStorage
    case notRegistryScope

    public var description: String {
        switch self {
        case .notAbsolute: "a scope of this transport is an absolute path"
        case .root: "\"/\" is no scope; the default of the transport is the empty scope"
        case .notCanonical: "a scope of this transport is a path without \".\", \"..\" and repeated slashes"
        case .onlyDefault: "this transport has no scope but the empty one"
        case .digest: "a digest is no scope of this transport"
        case .notStorage: "a scope of this transport begins with [DRIVER@ROOT] or [ROOT], and an image follows it"
        case .notRegistryScope: "a scope of this transport is HOST[/NAMESPACE[/STREAM[:TAG]]]"
        }
    }
}

extension SignaturePolicyFault.Reason {
    fileprivate var text: String {
        switch self {
        case .json(let text): text
        case .tooLarge(let limit): "is larger than \(limit) bytes"
        case .wrongType(let found, let wanted): "is \(found), not \(wanted)"
        case .missing: "is missing"
        case .unknownMember: "is not a member that is known here"
        case .noRequirements: "an empty list of requirements; insecureAcceptAnything is the requirement that demands nothing"
        case .unknownRequirement(let type): "\(quoted(type)) is no type of a requirement"
        case .unknownIdentity(let type): "\(quoted(type)) is no type of a signed identity"
        case .unknownKeyType(let type): "\(quoted(type)) is no type of keys"
        case .emptyText: "is empty"
        case .emptyList: "is an empty list"
        case .notBase64: "is not base64"
        case .notOne(let names, let found):
            "\(found == 0 ? "none" : "\(found)") of \(names.joined(separator: ", ")) are given, and exactly one is needed"
        case .several(let names): "at most one of \(names.joined(separator: ", ")) may be given"
        case .noneOf(let names): "one of \(names.joined(separator: ", ")) is needed"
        case .notReference(let text): "\(quoted(text)) is not an image reference"
        case .nameOnly(let text): "\(quoted(text)) has neither a tag nor a digest"
        case .notPrefix(let text): "\(quoted(text)) is neither a host nor the beginning of a repository's full name"
        case .scope(let fault): fault.description
        }
    }
}

/// A policy that cannot be used: its file, and what is wrong.
public struct SignaturePolicyError: Error, Hashable, Sendable, CustomStringConvertible {
    public var file: ByteString
    public var fault: SignaturePolicyFault

    public init(file: ByteString, fault: SignaturePolicyFault) {
        self.file = file
        self.fault = fault
    }

    public var description: String { "signature policy \(file): \(fault)" }
}
