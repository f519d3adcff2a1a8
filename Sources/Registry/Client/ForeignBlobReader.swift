internal import ComposefsHTTPClient
internal import ComposefsOCIModel
internal import ComposefsTransports

extension RegistryClient {
    /// Begins the download of a foreign blob from the first address that has it.
    func openForeignBlob(_ descriptor: Descriptor, from offset: UInt64) throws(RegistryError) -> any BlobReader {
        var failures: [String] = []
        for text in descriptor.urls {
            guard let url = HTTPURL(text) else {
                failures.append("\(printable(hidingSecrets(text), limit: 240)) is no address that can be fetched from")
                continue
            }
            // Not the registry, so not its credentials either.
            let place = RemoteRepository(domain: url.authority, name: "")
            do throws(RegistryError) {
                let response = try retrying(place) { () throws(Failure) in
                    let response = try session.open(url, for: place, headers: ["Accept-Encoding: identity"], mayShareConnection: false)
                    guard response.head.status == 200 else {
                        throw session.failure(status: response, what: "foreign layer \(descriptor.digest)")
                    }
                    return response
                }
                return ForeignBlobReader(session, response, skipping: offset)
            } catch {
                if error.kind == .cancelled { throw error }
                failures.append(error.description)
            }
        }
        throw RegistryError(.notFound, "the foreign layer cannot be had: " + failures.joined(separator: "; "))
    }
}

/// A foreign blob's bytes as its server sends them. Whoever reads them compares size and digest; what breaks off is asked for again by the next pull,
/// which goes on behind what has been kept.
private final class ForeignBlobReader: BlobReader {
    private let session: RegistrySession
    private let response: HTTPResponse
    /// Bytes that the caller has already.
    private var toSkip: UInt64

    init(_ session: RegistrySession, _ response: HTTPResponse, skipping offset: UInt64) {
        self.session = session
        self.response = response
        toSkip = offset
    }

    deinit { response.cancel() }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            let count: Int
            do throws(HTTPError) {
                let room = toSkip > 0 ? min(buffer.count, Int(clamping: toSkip)) : buffer.count
                count = try response.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<room]))
            } catch {
                throw RegistryError(error)
            }
            guard toSkip > 0, count > 0 else { return count }
            toSkip -= UInt64(count)
        }
    }
}
