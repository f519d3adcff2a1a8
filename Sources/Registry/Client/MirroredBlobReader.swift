internal import ComposefsOCIModel
internal import ComposefsTransports

/// A blob from the first place that gives it; where that breaks off for good, the next goes on.
final class MirroredBlobReader: BlobReader {
    private typealias Place = (index: Int, endpoint: RemoteRepository)

    private let client: RegistryClient
    private let reference: RegistryReference
    private let open: (RemoteRepository, UInt64) throws(RegistryError) -> any BlobReader
    private let observer: BlobObserver?
    private var endpoints: ArraySlice<(index: Int, endpoint: RemoteRepository)>
    private var failures: [(place: String, error: RegistryError)] = []
    private var reader: (any BlobReader)?
    /// Bytes from the blob's beginning that the caller has.
    private var offset: UInt64
    /// Those whose bytes the caller has, in order.
    private var givers: [Place] = []

    /// - Parameter open: opens the blob at a place in it.
    init(
        _ client: RegistryClient, _ reference: RegistryReference, _ endpoints: [(index: Int, endpoint: RemoteRepository)],
        from offset: UInt64, observer: BlobObserver?, _ open: @escaping (RemoteRepository, UInt64) throws(RegistryError) -> any BlobReader
    ) throws(RegistryError) {
        self.client = client
        self.reference = reference
        self.endpoints = endpoints[...]
        self.offset = offset
        self.observer = observer
        self.open = open
        try reopen()
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            guard let reader else { throw PlaceFinder.joined(failures) }
            do {
                let count = try reader.read(into: buffer)
                if count > 0, let place = endpoints.first, place.index != givers.last?.index { givers.append(place) }
                offset += UInt64(count)
                return count
            } catch let error as RegistryError {
                self.reader = nil
                try fail(error)
                try reopen()
            }
        }
    }

    func reject(_ reason: String) -> Bool {
        guard let giver = givers.last else { return false }
        reader = nil
        if givers.count > 1 {
            // Any of them may have lied. The one that came last has not yet shown what it has from the beginning.
            client.places.leave(reference, before: giver.index)
        } else {
            guard endpoints.last.map({ $0.index > giver.index }) == true else { return false }
            client.places.leave(reference, before: giver.index + 1)
        }
        let message = client.places.warnOfLie(givers.map(\.endpoint), reason)
        observer?(.retrying(reason: message, delay: .zero))
        return true
    }

    private func reopen() throws(RegistryError) {
        while let first = endpoints.first {
            do throws(RegistryError) {
                reader = try open(first.endpoint, offset)
                return
            } catch {
                try fail(error)
            }
        }
        throw PlaceFinder.joined(failures)
    }

    /// Leaves the first endpoint.
    private func fail(_ error: RegistryError) throws(RegistryError) {
        guard error.concernsOnePlace, let first = endpoints.popFirst() else { throw error }
        client.places.failed(reference, first.index, error)
        failures.append(("\(first.endpoint.domain)/\(first.endpoint.name)", error))
    }
}
