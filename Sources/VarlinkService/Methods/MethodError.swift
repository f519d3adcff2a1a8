import ComposefsHashing
import ComposefsJSON
import ComposefsOCI
import ComposefsVarlink

/// An error of a method, by its name in the method's interface.
struct MethodError: Error {
    var name: String
    var parameters: JSONObject

    private init(_ name: String, _ parameters: JSONValue) {
        self.name = name
        self.parameters = parameters.object ?? JSONObject()
    }

    func reply(of interface: String) -> VarlinkReply { VarlinkReply(error: interface + "." + name, parameters) }

    static func repositoryNotFound(_ message: String) -> MethodError { MethodError("RepoNotFound", ["message": .string(message)]) }
    static func invalidHandle(_ handle: UInt64) -> MethodError { MethodError("InvalidHandle", ["handle": JSONValue(handle)]) }
    static func internalError(_ message: String) -> MethodError { MethodError("InternalError", ["message": .string(message)]) }

    // Of org.composefs.Repository.
    static func invalidSpec(_ message: String) -> MethodError { MethodError("InvalidSpec", ["message": .string(message)]) }
    static func noSuchReference(_ name: String) -> MethodError { MethodError("NoSuchRef", ["reference": .string(name)]) }

    // Of org.composefs.Oci.
    static func noSuchImage(_ name: String) -> MethodError { MethodError("NoSuchImage", ["image": .string(name)]) }
    static func noSuchLayer(_ digest: String) -> MethodError { MethodError("NoSuchLayer", ["diff_id": .string(digest)]) }
    static func invalidDigest(_ message: String) -> MethodError { MethodError("InvalidDigest", ["message": .string(message)]) }
    static func invalidRequest(_ message: String) -> MethodError { MethodError("InvalidRequest", ["message": .string(message)]) }

    /// The error of the library, as the interface has it.
    init(of error: any Error, in interface: String) {
        let isOCI = interface == VarlinkInterface.oci.name
        switch error {
        case let error as MethodError: self = error
        case is CancellationError, RepositoryError.cancelled: self = .internalError("the call was cancelled")
        case ImageStoreError.noSuchImage(let name), ImageStoreError.imageNotFound(let name), RepositoryError.imageMissing(let name):
            self = isOCI ? .noSuchImage(name.jsonText) : .noSuchReference(name.jsonText)
        case ImageStoreError.noSuchLayer(let digest) where isOCI: self = .noSuchLayer(digest.description)
        case PullError.diffID(let expected, let actual) where isOCI:
            self = MethodError("DiffIdMismatch", ["expected": .string(expected.description), "actual": .string(actual.description)])
        case PullError.layer(_, _, _, let cause as ImageStoreError) where isOCI: self.init(of: cause, in: interface)
        case let error as NoMatchingBootImage where isOCI:
            self = MethodError(
                "BootImageMismatch", ["expected": .string(error.expected.hex), "tried": .integer(Int64(error.tried))])
        case ImageStoreError.invalidTag where isOCI: self = .invalidRequest("\(error)")
        default: self = .internalError("\(error)")
        }
    }
}

extension ByteString {
    /// A name as text. One that is not UTF-8 is escaped.
    var jsonText: String { utf8Text ?? description }
}

/// A digest of a parameter.
///
/// - Throws: `MethodError.invalidDigest`.
func digest(_ text: String, _ name: String) throws -> ContentDigest {
    guard let digest = ContentDigest(text) else { throw MethodError.invalidDigest("\(name): \(ByteString(text)) is no digest") }
    return digest
}
