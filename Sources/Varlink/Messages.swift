public import ComposefsJSON

/// A call of a method.
public struct VarlinkCall: Hashable, Sendable {
    /// The interface: what is before the last dot of the method.
    public var interface: String
    /// The method's name without the interface.
    public var method: String
    public var parameters: JSONObject
    /// The caller wants no reply.
    public var isOneWay = false
    /// The caller accepts several replies.
    public var wantsMore = false
    /// The caller wants to speak another protocol after the reply.
    public var upgrades = false

    public init(interface: String, method: String, parameters: JSONObject = JSONObject()) {
        self.interface = interface
        self.method = method
        self.parameters = parameters
    }

    /// The largest number of JSON values in a call.
    public static let mostValues = 200_000

    /// - Throws: `VarlinkFault.notJSON`, `.notCall`.
    public init(parsing message: [UInt8]) throws(VarlinkFault) {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(message, limits: JSONLimits(depth: 32, values: Self.mostValues))
        } catch {
            throw .notJSON("\(error)")
        }
        guard case .object(let members) = value else { throw .notCall("it is \(value.kind)") }
        var name: String?
        parameters = JSONObject()
        for (key, value) in members {
            switch key {
            case "method":
                guard let text = value.string else { throw .notCall("its method is \(value.kind)") }
                name = text
            case "parameters":
                if value.isNull { continue }
                guard let object = value.object else { throw .notCall("its parameters are \(value.kind)") }
                parameters = object
            case "oneway": isOneWay = try Self.flag(key, value)
            case "more": wantsMore = try Self.flag(key, value)
            case "upgrade": upgrades = try Self.flag(key, value)
            default: throw .notCall("it has the unknown member \(JSONValue.string(key))")
            }
        }
        guard let name, let dot = name.lastIndex(of: ".") else { throw .notCall("it names no method of an interface") }
        guard !isOneWay || !wantsMore else { throw .notCall("it wants no reply and several at the same time") }
        interface = String(name[..<dot])
        method = String(name[name.index(after: dot)...])
    }

    private static func flag(_ key: String, _ value: JSONValue) throws(VarlinkFault) -> Bool {
        if value.isNull { return false }
        guard let flag = value.bool else { throw .notCall("its member \(JSONValue.string(key)) is \(value.kind)") }
        return flag
    }

    /// The message, with its NUL.
    public var message: [UInt8] {
        var value: JSONValue = ["method": .string(interface + "." + method), "parameters": .object(parameters)]
        if isOneWay { value["oneway"] = true }
        if wantsMore { value["more"] = true }
        if upgrades { value["upgrade"] = true }
        return value.compactBytes + [0]
    }
}

/// A reply: what a method returns, or its error.
public struct VarlinkReply: Hashable, Sendable {
    /// The whole name of an error, with its interface; nil for success.
    public var error: String?
    public var parameters: JSONObject
    /// Another reply follows.
    public var continues = false

    public init(_ parameters: JSONObject, continues: Bool = false) {
        self.parameters = parameters
        self.continues = continues
    }

    public init(error: String, _ parameters: JSONObject = JSONObject()) {
        self.error = error
        self.parameters = parameters
    }

    /// - Throws: `VarlinkFault.notJSON`, `.notCall` for a message that is no reply.
    public init(parsing message: [UInt8], limits: JSONLimits = .default) throws(VarlinkFault) {
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(message, limits: limits) } catch { throw .notJSON("\(error)") }
        guard let members = value.object else { throw .notCall("it is \(value.kind)") }
        error = members["error"]?.string
        parameters = members["parameters"]?.object ?? JSONObject()
        continues = members["continues"]?.bool ?? false
    }

    /// The message, with its NUL.
    public var message: [UInt8] {
        var value = JSONValue.object(JSONObject())
        if let error { value["error"] = .string(error) }
        value["parameters"] = .object(parameters)
        if continues { value["continues"] = true }
        return value.compactBytes + [0]
    }
}

/// The errors of `org.varlink.service`, which any call can have.
public enum VarlinkServiceError: Error, Hashable, Sendable {
    case interfaceNotFound(String)
    case methodNotFound(String)
    case methodNotImplemented(String)
    /// A parameter is unknown, missing, or of another type or range than the interface says.
    case invalidParameter(String)

    public var reply: VarlinkReply {
        func error(_ name: String, _ key: String, _ value: String) -> VarlinkReply {
            VarlinkReply(error: "org.varlink.service." + name, JSONObject([(key: key, value: .string(value))]))
        }
        return switch self {
        case .interfaceNotFound(let name): error("InterfaceNotFound", "interface", name)
        case .methodNotFound(let name): error("MethodNotFound", "method", name)
        case .methodNotImplemented(let name): error("MethodNotImplemented", "method", name)
        case .invalidParameter(let name): error("InvalidParameter", "parameter", name)
        }
    }
}
