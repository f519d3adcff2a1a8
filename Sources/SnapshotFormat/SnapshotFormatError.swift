public import ComposefsJSON

/// The reason why a descriptor of a snapshot was refused.
public enum SnapshotFormatError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The document is not JSON.
    case json(JSONError)
    /// The document has more bytes than a descriptor may have.
    case tooLarge(limit: Int)
    /// A member is missing. The first value is the path of the member, such as `state.upper.file`.
    case missing(String)
    /// There is a member that the schema does not have.
    case unknownMember(String)
    /// A member has a value of another type than the schema says.
    case type(String, expected: String, found: JSONValue.Kind)
    /// A member has a value that the schema does not allow.
    case value(String, reason: String)
    /// The document has the schema of another release: its name or number.
    case schema(String)
    /// The state is not that of a disk: memory and devices, for example.
    case notDisk(String)

    public var description: String {
        switch self {
        case .json(let error): "\(error)"
        case .tooLarge(let limit): "the document has more than \(limit) bytes"
        case .missing(let path): "\"\(path)\" is missing"
        case .unknownMember(let path): "unknown member \"\(path)\""
        case .type(let path, let expected, let found): "\"\(path)\" is \(found) instead of \(expected)"
        case .value(let path, let reason): "\"\(path)\" \(reason)"
        case .schema(let schema): "the schema is \(schema); supported is 1, of microsandbox 0.6.7 to 0.6.18"
        case .notDisk(let kind): "it is a snapshot of kind \(kind); supported are snapshots of disks"
        }
    }
}
