internal import ComposefsHTTPClient
internal import ComposefsOCIModel
internal import ComposefsTransports

/// The bytes of a foreign layer, from one of the URLs in its descriptor. The reader checks size and digest.
final class ForeignBlobConnection: BlobConnection {
    private let response: HTTPResponse
    /// Bytes that the reader already has. These servers are not asked for ranges.
    private var toSkip: UInt64

    init(_ client: RegistryClient, _ descriptor: Descriptor, _ address: String, skipping offset: UInt64) throws(Failure) {
        guard let url = HTTPURL(address) else {
            throw Failure(.invalidForeignURL(address))
        }
        // This server is not the registry, so it does not get the registry's credentials.
        let server = RemoteRepository(domain: url.authority, name: "")
        let response = try client.session.open(url, for: server, headers: ["Accept-Encoding: identity"], mayShareConnection: false)
        guard response.head.status == 200 else {
            throw client.session.failure(status: response, for: .foreignLayer(descriptor.digest))
        }
        self.response = response
        toSkip = offset
    }

    deinit { response.cancel() }

    func close() { response.cancel() }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int? {
        while true {
            let count: Int
            do throws(HTTPError) {
                let room = toSkip > 0 ? min(buffer.count, Int(clamping: toSkip)) : buffer.count
                count = try response.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<room]))
            } catch {
                throw OriginFailure(Failure(error))
            }
            guard toSkip > 0, count > 0 else { return count }
            toSkip -= UInt64(count)
        }
    }
}
