import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsVarlink

/// What a method replies.
struct MethodReply {
    var parameters: JSONObject
    var descriptors: [SharedDescriptor] = []

    init(_ parameters: JSONValue = .object(JSONObject()), _ descriptors: [SharedDescriptor] = []) {
        self.parameters = parameters.object ?? JSONObject()
        self.descriptors = descriptors
    }
}

/// A call that is being answered.
struct ServiceCall {
    var parameters: ParameterReader
    /// The descriptors that came with the call. Only methods that take some have any.
    var descriptors: [SharedDescriptor]
    var wantsMore: Bool
    /// Ends the call: when the client is gone, unless it wants no reply; and when the service ends.
    var cancellation: Cancellation
    /// Sends a reply before the last one.
    var sendProgress: (JSONValue) throws -> Void
}

/// The handles of one connection, and the methods. Used by the connection's thread alone.
final class Session {
    let connection: ServiceConnection
    var options: ServiceOptions { connection.server.options }
    private var stores: [UInt64: Store] = [:]

    init(_ connection: ServiceConnection) { self.connection = connection }

    // MARK: Handles

    /// - Throws: `MethodError` if the connection has too many handles.
    func addHandle(_ store: Store) throws -> UInt64 {
        guard stores.count < options.mostHandles else {
            throw MethodError.internalError("this connection has \(stores.count) open handles, and must close one first")
        }
        let handle = connection.server.newHandle()
        stores[handle] = store
        return handle
    }

    /// The repository of the parameter `handle`.
    func store(_ parameters: inout ParameterReader) throws -> Store {
        let handle = try parameters.number("handle")
        guard let store = stores[handle] else { throw MethodError.invalidHandle(handle) }
        return store
    }

    func removeHandle(_ handle: UInt64) throws {
        guard stores.removeValue(forKey: handle) != nil else { throw MethodError.invalidHandle(handle) }
    }

    // MARK: Calls

    /// Answers a call, unless it wants no reply.
    ///
    /// - Throws: `ConnectionEnd` if the client does not take the reply.
    func answer(_ call: VarlinkCall, _ descriptors: [SharedDescriptor]) throws {
        var reply: VarlinkReply
        var passed: [SharedDescriptor] = []
        do {
            let result = try run(call, descriptors)
            reply = VarlinkReply(result.parameters)
            passed = result.descriptors
        } catch let end as ConnectionEnd {
            throw end
        } catch let error as VarlinkServiceError {
            reply = error.reply
        } catch {
            reply = MethodError(of: error, in: call.interface).reply(of: call.interface)
        }
        if call.isOneWay { return }
        var message = reply.message
        if message.count > options.largestMessage {
            let error = MethodError.internalError("the reply has \(message.count) bytes, and a message at most \(options.largestMessage)")
            (message, passed) = (error.reply(of: call.interface).message, [])
        }
        try connection.send(message, passed)
    }

    private func run(_ call: VarlinkCall, _ descriptors: [SharedDescriptor]) throws -> MethodReply {
        let interfaces: [VarlinkInterface] = [.service, .repository, .oci]
        let name = call.interface + "." + call.method
        guard let interface = interfaces.first(where: { $0.name == call.interface }) else {
            throw VarlinkServiceError.interfaceNotFound(call.interface)
        }
        guard interface.methods.contains(call.method) else { throw VarlinkServiceError.methodNotFound(name) }
        guard !call.upgrades else { throw VarlinkServiceError.methodNotImplemented(name) }
        let takesDescriptors = ["Mount", "OciMount", "PutLayer"].contains(call.method)
        let running = ServiceCall(
            parameters: ParameterReader(call.parameters), descriptors: takesDescriptors ? descriptors : [],
            wantsMore: call.wantsMore, cancellation: call.isOneWay ? connection.server.shutdown : connection.cancellation,
            sendProgress: { [connection] parameters in
                try connection.send(VarlinkReply(parameters.object ?? JSONObject(), continues: true).message, [])
            })
        return switch interface.name {
        case VarlinkInterface.service.name: try describe(call.method, running, interfaces)
        case VarlinkInterface.repository.name: try callRepository(call.method, running)
        default: try callOCI(call.method, running)
        }
    }

    private func describe(_ method: String, _ call: ServiceCall, _ interfaces: [VarlinkInterface]) throws -> MethodReply {
        var parameters = call.parameters
        if method == "GetInfo" {
            try parameters.finish()
            return MethodReply([
                "vendor": "cfsoci", "product": "cfsoci", "version": .string(options.version), "url": "man:cfsoci-varlink(1)",
                "interfaces": .array(interfaces.map { .string($0.name) }),
            ])
        }
        let name = try parameters.string("interface")
        try parameters.finish()
        guard let interface = interfaces.first(where: { $0.name == name }) else { throw VarlinkServiceError.interfaceNotFound(name) }
        return MethodReply(["description": .string(interface.description)])
    }
}
