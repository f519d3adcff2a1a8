internal import ComposefsBytes
internal import ComposefsOCIModel
internal import Synchronization

/// Finds the endpoints for a reference: reads the registries configuration when it is first needed, and remembers which endpoints failed.
final class EndpointFinder: Sendable {
    private struct State {
        var configuration: RegistriesConfiguration?
        /// The full reference of each resolved short name, by the short reference's canonical text.
        var resolved: [String: RegistryReference] = [:]
        /// The index of the first endpoint that is still worth asking.
        var first: [RegistryReference: Int] = [:]
    }

    private let options: RegistryOptions
    private let environment: Environment
    private let state = Mutex(State())

    init(_ options: RegistryOptions, _ environment: Environment) {
        self.options = options
        self.environment = environment
    }

    func configuration() throws(RegistryError) -> RegistriesConfiguration {
        try state.withLock { state throws(RegistryError) in
            if let known = state.configuration { return known }
            let read = try RegistriesConfiguration(options.registriesConfiguration, environment)
            state.configuration = read
            return read
        }
    }

    // MARK: Short names

    /// The references that a short name may stand for, or the one that was found. Sends no request.
    func meanings(of reference: RegistryReference) throws(RegistryError) -> [RegistryReference] {
        if let known = resolved(reference) { return [known] }
        return try configuration().meanings(of: reference)
    }

    private func resolved(_ reference: RegistryReference) -> RegistryReference? {
        guard reference.shortName != nil else { return reference }
        return state.withLock { $0.resolved[reference.canonical] }
    }

    private func resolve(_ reference: RegistryReference, to found: RegistryReference) {
        if reference.shortName != nil { state.withLock { $0.resolved[reference.canonical] = found } }
    }

    /// Records the choice for later, for other container tools too.
    private func record(_ reference: RegistryReference, _ chosen: RegistryReference) {
        guard options.recordsChoices, let name = reference.shortName, let path = ConfigurationPaths(environment).recordedAliases else {
            return
        }
        do throws(RegistryError) {
            try RecordedAliases(path: path).record(name, as: "\(chosen.domain)/\(chosen.name)")
        } catch {
            options.warn?("cannot record the registry chosen for \(name), which will be asked for again: \(error)")
        }
    }

    // MARK: Endpoints

    /// Runs `body` with each candidate of a reference, and with each endpoint of that, until one has it. That endpoint is asked first for
    /// the other parts of the image. Returns the full reference and the value of `body`.
    func locate<Value>(
        _ reference: RegistryReference, _ body: (RegistryReference, RemoteRepository) throws(RegistryError) -> Value
    ) throws(RegistryError) -> (reference: RegistryReference, value: Value) {
        var failures: [(name: String, error: RegistryError)] = []
        let candidates: [RegistryReference]
        var wasAsked = false
        if let known = resolved(reference) {
            candidates = [known]
        } else {
            let ask = options.chooseRegistry.map { choose in
                { (meanings: [RegistryReference]) -> RegistryReference? in
                    wasAsked = true
                    return choose(meanings)
                }
            }
            candidates = try configuration().candidates(for: reference, choose: ask)
        }
        for candidate in candidates {
            do throws(RegistryError) {
                let value = try atEndpoints(of: candidate, settles: true) { endpoint throws(RegistryError) in try body(candidate, endpoint)
                }
                resolve(reference, to: candidate)
                // A choice that led to no image is not recorded.
                if wasAsked { record(reference, candidate) }
                return (candidate, value)
            } catch {
                guard error.concernsOneEndpoint else { throw error }
                failures.append((candidate.canonical, error))
            }
        }
        throw Self.joined(failures)
    }

    /// Runs `body` with the endpoint that had the reference's manifest, and if it fails with the ones after it.
    ///
    /// - Parameter isEnough: a value that is not enough is returned only if no later endpoint has one that is.
    func atEndpoints<Value>(
        of reference: RegistryReference, settles: Bool = false, isEnough: (Value) -> Bool = { _ in true },
        _ body: (RemoteRepository) throws(RegistryError) -> Value
    ) throws(RegistryError) -> Value {
        var failures: [(name: String, error: RegistryError)] = []
        var insufficient: Value?
        let endpoints = try endpoints(of: reference)
        for (index, endpoint) in endpoints {
            do throws(RegistryError) {
                let value = try body(endpoint)
                guard isEnough(value) else {
                    insufficient = insufficient ?? value
                    continue
                }
                if settles {
                    leave(reference, before: index)
                    options.observe?(.endpoint(name: endpoint.fullName, isMirror: endpoint.isMirror, reference: reference.canonical))
                }
                return value
            } catch {
                guard error.concernsOneEndpoint else { throw error }
                failed(reference, index, error)
                failures.append(("\(endpoint.domain)/\(endpoint.name)", error))
                if error.kind == .digestMismatch, index != endpoints.last?.index { warnAboutContent([endpoint], error.description) }
            }
        }
        if let insufficient { return insufficient }
        throw Self.joined(failures)
    }

    /// The remaining endpoints, in order, with their indices among all.
    func endpoints(of reference: RegistryReference) throws(RegistryError) -> [(index: Int, endpoint: RemoteRepository)] {
        let reference = try meanings(of: reference).first ?? reference
        let all = try configuration().endpoints(for: reference)
        let first = min(state.withLock { $0.first[reference] ?? 0 }, all.count - 1)
        return Array(zip(all.indices, all).dropFirst(max(0, first)).map { (index: $0.0, endpoint: $0.1) })
    }

    /// Leaves an endpoint that does not respond, so that not every layer waits for it again, and one that sent wrong content.
    func failed(_ reference: RegistryReference, _ index: Int, _ error: RegistryError) {
        if [.connection, .timeout, .tls, .unauthorized, .digestMismatch].contains(error.kind) { leave(reference, before: index + 1) }
    }

    /// - Returns: the message.
    @discardableResult
    func warnAboutContent(_ mirrors: [RemoteRepository], _ reason: String) -> String {
        let names = mirrors.map { "\($0.domain)/\($0.name)" }.joined(separator: " and ")
        let message = "\(names) sent wrong content; trying the next endpoint: \(reason)"
        options.warn?(message)
        return message
    }

    func leave(_ reference: RegistryReference, before index: Int) {
        state.withLock { $0.first[reference] = max($0.first[reference] ?? 0, index) }
    }

    /// The last error, which is the registry's own, with the earlier ones.
    static func joined(_ failures: [(name: String, error: RegistryError)]) -> RegistryError {
        guard let last = failures.last?.error else { return RegistryError(.noEndpoint) }
        guard failures.count > 1 else { return last }
        return RegistryError(.others(last, earlier: Array(failures.dropLast())))
    }
}
