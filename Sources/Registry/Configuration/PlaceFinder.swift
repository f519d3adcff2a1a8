internal import ComposefsBytes
internal import ComposefsOCIModel
internal import Synchronization

/// Where a client finds what a reference names: the registries configuration, read when it is first needed, and what was learned since.
final class PlaceFinder: Sendable {
    private struct State {
        var configuration: RegistriesConfiguration?
        /// The reference that a short name turned out to be, by the short reference's canonical text.
        var resolved: [String: RegistryReference] = [:]
        /// The first of a reference's endpoints that still is worth asking.
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

    /// What a short name may mean or, once that is known, does mean. Asks nobody.
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

    /// For the next time, and for the other container tools.
    private func record(_ reference: RegistryReference, _ chosen: RegistryReference) {
        guard options.recordsChoices, let name = reference.shortName, let path = ConfigurationPlaces(environment).recordedAliases else {
            return
        }
        do throws(RegistryError) {
            try RecordedAliases(path: path).record(name, as: "\(chosen.domain)/\(chosen.name)")
        } catch {
            options.warn?("what \(name) means could not be recorded, and will be asked again: \(error)")
        }
    }

    // MARK: Endpoints

    /// What a reference turned out to name, with what `body` made of it: the first of its candidates, and of that the first endpoint, that
    /// has it. The endpoint is asked for the image's other parts too.
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
                // An answer that led to nothing is not remembered.
                if wasAsked { record(reference, candidate) }
                return (candidate, value)
            } catch {
                guard error.concernsOneEndpoint else { throw error }
                failures.append((candidate.canonical, error))
            }
        }
        throw Self.joined(failures)
    }

    /// Runs `body` with the endpoint that had the reference's manifest, and with those after it where it fails.
    ///
    /// - Parameter isEnough: a value that is not is taken only where no later endpoint has one that is.
    func atEndpoints<Value>(
        of reference: RegistryReference, settles: Bool = false, isEnough: (Value) -> Bool = { _ in true },
        _ body: (RemoteRepository) throws(RegistryError) -> Value
    ) throws(RegistryError) -> Value {
        var failures: [(name: String, error: RegistryError)] = []
        var meagre: Value?
        let endpoints = try endpoints(of: reference)
        for (index, endpoint) in endpoints {
            do throws(RegistryError) {
                let value = try body(endpoint)
                guard isEnough(value) else {
                    meagre = meagre ?? value
                    continue
                }
                if settles { leave(reference, before: index) }
                return value
            } catch {
                guard error.concernsOneEndpoint else { throw error }
                failed(reference, index, error)
                failures.append(("\(endpoint.domain)/\(endpoint.name)", error))
                if error.kind == .digestMismatch, index != endpoints.last?.index { warnOfLie([endpoint], error.description) }
            }
        }
        if let meagre { return meagre }
        throw Self.joined(failures)
    }

    /// The endpoints that are left, in order, with their places among all.
    func endpoints(of reference: RegistryReference) throws(RegistryError) -> [(index: Int, endpoint: RemoteRepository)] {
        let reference = try meanings(of: reference).first ?? reference
        let all = try configuration().endpoints(for: reference)
        let first = min(state.withLock { $0.first[reference] ?? 0 }, all.count - 1)
        return Array(zip(all.indices, all).dropFirst(max(0, first)).map { (index: $0.0, endpoint: $0.1) })
    }

    /// Not to wait once more for each layer of an image where nobody answers, and not to fetch more from who sends something else.
    func failed(_ reference: RegistryReference, _ index: Int, _ error: RegistryError) {
        if [.connection, .timeout, .tls, .unauthorized, .digestMismatch].contains(error.kind) { leave(reference, before: index + 1) }
    }

    /// - Returns: the message.
    @discardableResult
    func warnOfLie(_ mirrors: [RemoteRepository], _ reason: String) -> String {
        let names = mirrors.map { "\($0.domain)/\($0.name)" }.joined(separator: " and ")
        let message = "\(names) sent something else than was asked for, the next place is asked: \(reason)"
        options.warn?(message)
        return message
    }

    func leave(_ reference: RegistryReference, before index: Int) {
        state.withLock { $0.first[reference] = max($0.first[reference] ?? 0, index) }
    }

    /// The last error, which is the registry's own, and what went wrong before.
    static func joined(_ failures: [(name: String, error: RegistryError)]) -> RegistryError {
        guard let last = failures.last?.error else { return RegistryError(.noEndpoint) }
        guard failures.count > 1 else { return last }
        return RegistryError(.others(last, earlier: Array(failures.dropLast())))
    }
}
