public import ComposefsJSON

/// Reads the parameters of a call by name. A null is the same as a missing member. `finish` refuses what no read has asked for, so that no
/// parameter is ignored.
public struct ParameterReader: Sendable {
    private var rest: JSONObject
    /// The names of the objects that this is a part of.
    private let path: String

    public init(_ parameters: JSONObject) { self.init(parameters, path: "") }

    private init(_ parameters: JSONObject, path: String) {
        rest = JSONObject(parameters.filter { !$0.value.isNull }.map { (key: $0.key, value: $0.value) })
        self.path = path
    }

    /// - Throws: `VarlinkServiceError.invalidParameter` with the name of a parameter that was not read.
    public func finish() throws(VarlinkServiceError) {
        if let unknown = rest.first { throw .invalidParameter(path + unknown.key) }
    }

    private mutating func optional<Value>(
        _ name: String, _ value: (JSONValue) -> Value?
    ) throws(VarlinkServiceError) -> Value? {
        guard let found = rest[name] else { return nil }
        rest[name] = nil
        guard let value = value(found) else { throw .invalidParameter(path + name) }
        return value
    }

    private func required<Value>(_ value: Value?, _ name: String) throws(VarlinkServiceError) -> Value {
        guard let value else { throw .invalidParameter(path + name) }
        return value
    }

    public mutating func optionalString(_ name: String) throws(VarlinkServiceError) -> String? { try optional(name) { $0.string } }
    public mutating func optionalBool(_ name: String) throws(VarlinkServiceError) -> Bool? { try optional(name) { $0.bool } }

    public mutating func string(_ name: String) throws(VarlinkServiceError) -> String { try required(try optionalString(name), name) }
    public mutating func bool(_ name: String) throws(VarlinkServiceError) -> Bool { try required(try optionalBool(name), name) }
    public mutating func number(_ name: String) throws(VarlinkServiceError) -> UInt64 {
        try required(try optional(name) { $0.uint64 }, name)
    }

    /// A list of texts. A missing one is empty: not all clients write empty lists.
    public mutating func strings(_ name: String) throws(VarlinkServiceError) -> [String] {
        try optional(name) { value in
            guard let list = value.array else { return nil }
            let texts = list.compactMap(\.string)
            return texts.count == list.count ? texts : nil
        } ?? []
    }

    /// An object's parameters.
    public mutating func optionalObject(_ name: String) throws(VarlinkServiceError) -> ParameterReader? {
        let path = path + name + "."
        return try optional(name) { $0.object }.map { ParameterReader($0, path: path) }
    }

    public mutating func object(_ name: String) throws(VarlinkServiceError) -> ParameterReader {
        try required(try optionalObject(name), name)
    }

    /// The parameters of each object in a list.
    public mutating func objects(_ name: String) throws(VarlinkServiceError) -> [ParameterReader] {
        let path = path + name + "."
        let list = try required(try optional(name) { $0.array }, name)
        var readers: [ParameterReader] = []
        for element in list {
            guard let object = element.object else { throw .invalidParameter(self.path + name) }
            readers.append(ParameterReader(object, path: path))
        }
        return readers
    }
}
