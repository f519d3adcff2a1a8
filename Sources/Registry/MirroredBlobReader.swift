internal import OCI

/// A blob from the first place that gives it; where that breaks off for good, the next goes on.
final class MirroredBlobReader: BlobReader {
    private let client: RegistryClient
    private let reference: RegistryReference
    private let open: (RemoteRepository, UInt64) throws(RegistryError) -> any BlobReader
    private var endpoints: ArraySlice<(index: Int, endpoint: RemoteRepository)>
    private var failures: [(place: String, error: RegistryError)] = []
    private var reader: (any BlobReader)?
    /// Bytes from the blob's beginning that the caller has.
    private var offset: UInt64

    /// - Parameter open: opens the blob at a place in it.
    init(
        _ client: RegistryClient, _ reference: RegistryReference, _ endpoints: [(index: Int, endpoint: RemoteRepository)],
        from offset: UInt64, _ open: @escaping (RemoteRepository, UInt64) throws(RegistryError) -> any BlobReader
    ) throws(RegistryError) {
        self.client = client
        self.reference = reference
        self.endpoints = endpoints[...]
        self.offset = offset
        self.open = open
        try reopen()
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            guard let reader else { throw PlaceFinder.joined(failures) }
            do {
                let count = try reader.read(into: buffer)
                offset += UInt64(count)
                return count
            } catch let error as RegistryError {
                self.reader = nil
                try fail(error)
                try reopen()
            }
        }
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
