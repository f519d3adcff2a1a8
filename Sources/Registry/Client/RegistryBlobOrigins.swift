internal import ComposefsConcurrency
internal import ComposefsOCIModel
internal import ComposefsTransports

/// The origins of a registry image's blob: its mirrors and its registry, in the order of the registries configuration, and then, for a
/// foreign layer that none of them has, the URLs in its descriptor.
final class RegistryBlobOrigins: BlobOrigins {
    private let client: RegistryClient
    /// The image's reference; nil for a blob of one repository without alternatives.
    private let reference: RegistryReference?
    private let descriptor: Descriptor
    private let endpoints: [BlobEndpoint]
    private let addresses: [String]
    /// The errors of the endpoints, in order.
    private var failures: [(name: String, error: RegistryError)] = []
    private var addressFailures: [RegistryError] = []

    init(_ client: RegistryClient, _ reference: RegistryReference, _ descriptor: Descriptor) throws(RegistryError) {
        self.client = client
        self.reference = reference
        self.descriptor = descriptor
        endpoints = try client.finder.endpoints(of: reference).map {
            BlobEndpoint(client, $0.endpoint, index: $0.index, digest: descriptor.digest, size: descriptor.size)
        }
        addresses = descriptor.isForeign && client.options.fetchesForeignLayers ? descriptor.urls : []
    }

    /// The origin of a blob of one repository.
    init(_ client: RegistryClient, _ repository: RemoteRepository, _ descriptor: Descriptor) {
        self.client = client
        reference = nil
        self.descriptor = descriptor
        endpoints = [BlobEndpoint(client, repository, index: 0, digest: descriptor.digest, size: descriptor.size)]
        addresses = []
    }

    var count: Int { endpoints.count + addresses.count }
    var cancellation: Cancellation? { client.session.cancellation }

    func retryBudget(of origin: Int) -> RetryBudget {
        RetryBudget(client.options.retry, hasAlternative: origin < endpoints.count && endpoints[origin].repository.isMirror)
    }

    func connect(_ origin: Int, from offset: UInt64) throws(OriginFailure) -> any BlobConnection {
        // The addresses are for a blob that is missing, not for an endpoint that fails in another way.
        guard origin < endpoints.count || failures.last?.error.kind == .notFound else {
            throw OriginFailure(EndpointFinder.joined(failures))
        }
        do throws(Failure) {
            if origin < endpoints.count { return try endpoints[origin].connect(from: offset) }
            return try ForeignBlobConnection(client, descriptor, addresses[origin - endpoints.count], skipping: offset)
        } catch {
            throw OriginFailure(error)
        }
    }

    func gaveUp(_ origin: Int, _ error: any Error) {
        guard let error = error as? RegistryError else { preconditionFailure("an endpoint fails with \(error), not with a RegistryError") }
        guard origin < endpoints.count else {
            addressFailures.append(error)
            return
        }
        let endpoint = endpoints[origin]
        // A single endpoint stays in use: there is no alternative.
        if let reference, endpoints.count > 1 { client.finder.failed(reference, endpoint.index, error) }
        failures.append(("\(endpoint.repository.domain)/\(endpoint.repository.name)", error))
    }

    func sentOtherContent(_ origins: [Int], _ reason: String) -> String? {
        let senders = origins.compactMap { $0 < endpoints.count ? endpoints[$0] : nil }
        guard let reference, let last = senders.last, senders.count == origins.count else { return nil }
        if senders.count > 1 {
            // Any of them may have sent wrong bytes. The last one has not yet sent the blob from the beginning, so it is tried again.
            client.finder.leave(reference, before: last.index)
        } else {
            guard endpoints.last.map({ $0.index > last.index }) == true else { return nil }
            client.finder.leave(reference, before: last.index + 1)
        }
        return client.finder.warnAboutContent(senders.map(\.repository), reason)
    }

    var failure: any Error {
        let error = EndpointFinder.joined(failures)
        guard error.kind == .notFound, descriptor.isForeign else { return error }
        if !addressFailures.isEmpty {
            return RegistryError(.foreignLayerUnreachable(addressFailures))
        }
        return RegistryError(.foreignLayer(error, descriptor))
    }
}
