internal import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsOCIModel

extension RegistryClient {
    private static let pageLimit = 100
    private static let referrerLimit = 10_000
    private static let indexType = "application/vnd.oci.image.index.v1+json"

    /// The descriptors of manifests whose `subject` is `digest`, in the registry's order (distribution-spec, listing referrers).
    /// Where the registry has no referrers API, the index that clients keep under the tag schema's tag; with neither there are none.
    func fetchReferrers(_ repository: RemoteRepository, of digest: ContentDigest) throws(RegistryError) -> [Descriptor] {
        let what = "referrers of \(repository.domain)/\(repository.name)@\(digest)"
        var path = "/v2/\(repository.name)/referrers/\(digest)"
        var query: String?
        var found: [Descriptor] = []
        for page in 0..<Self.pageLimit {
            let (entries, next): ([Descriptor], HTTPURL?)
            do throws(RegistryError) {
                (entries, next) = try retrying(repository) { () throws(Failure) in try fetchPage(repository, path, query, what) }
            } catch {
                guard page == 0, error.kind == .notFound else { throw error }
                return try fetchTaggedReferrers(repository, digest, what)
            }
            found += entries
            guard let next, found.count <= Self.referrerLimit else {
                if found.count > Self.referrerLimit { break }
                return found
            }
            (path, query) = next.target
        }
        throw RegistryError(.tooLarge, "\(what): more than \(Self.referrerLimit) of them, or \(Self.pageLimit) pages")
    }

    private func fetchPage(
        _ repository: RemoteRepository, _ path: String, _ query: String?, _ what: String
    ) throws(Failure) -> ([Descriptor], next: HTTPURL?) {
        let response = try open(repository, path, query: query, headers: ["Accept: " + Self.indexType], what: what)
        let bytes = try session.body(of: response, limit: options.manifestLimit, what: "list of referrers")
        do throws(RegistryError) {
            let entries = try Self.entries(bytes, response.url.display)
            guard let link = Self.nextLink(response.head.all("link")) else { return (entries, nil) }
            guard let url = response.url.resolving(link), url.hasSameOrigin(as: response.url),
                url.target.path.hasPrefix("/v2/\(repository.name)/")
            else {
                throw RegistryError(.badResponse, "\(response.url.display): its Link \(printable(link)) leads out of the repository")
            }
            return (entries, url)
        } catch {
            throw Failure(error)
        }
    }

    /// Distribution-spec, referrers tag schema: algorithm and digest joined by a dash.
    static func referrersTag(_ digest: ContentDigest) -> String { "\(digest.algorithm.rawValue.prefix(32))-\(digest.hex.prefix(64))" }

    /// The index under that tag with one more entry; nil where it has the entry already.
    func taggedReferrers(
        _ repository: RemoteRepository, of subject: ContentDigest, adding entry: Descriptor
    ) throws(RegistryError) -> [UInt8]? {
        var index: JSONValue = ["schemaVersion": 2, "mediaType": .string(Self.indexType), "manifests": []]
        do throws(RegistryError) {
            let tag = Self.referrersTag(subject)
            let fetched = try fetchManifest(repository, reference: tag, expected: nil, limit: options.manifestLimit)
            if try Self.entries(fetched.bytes, "\(repository.domain)/\(repository.name):\(tag)").contains(where: {
                $0.digest == entry.digest
            }) {
                return nil
            }
            if let known = try? JSONValue.parse(fetched.bytes) { index = known }
        } catch {
            guard error.kind == .notFound else { throw error }
        }
        var value: JSONValue = [
            "mediaType": .string(entry.mediaType), "digest": .string(entry.digest.description), "size": JSONValue(entry.size),
        ]
        if let type = entry.artifactType { value["artifactType"] = .string(type) }
        if !entry.annotations.isEmpty {
            let members = entry.annotations.sorted { $0.key < $1.key }.map { (key: $0.key, value: JSONValue.string($0.value)) }
            value["annotations"] = .object(JSONObject(members))
        }
        index["manifests"] = .array((index["manifests"]?.array ?? []) + [value])
        return index.compactBytes
    }

    private func fetchTaggedReferrers(_ repository: RemoteRepository, _ digest: ContentDigest, _ what: String) throws(RegistryError)
        -> [Descriptor]
    {
        let tag = Self.referrersTag(digest)
        do throws(RegistryError) {
            let fetched = try fetchManifest(repository, reference: tag, expected: nil, limit: options.manifestLimit)
            return try Self.entries(fetched.bytes, what)
        } catch {
            if error.kind == .notFound { return [] }
            throw error
        }
    }

    private static func entries(_ bytes: [UInt8], _ origin: String) throws(RegistryError) -> [Descriptor] {
        do { return try ImageIndex(parsing: bytes).manifests } catch {
            throw RegistryError(.badResponse, "\(origin): \(printable("\(error)"))")
        }
    }

    /// The target of `Link: <…>; rel="next"` (RFC 8288).
    static func nextLink(_ fields: [String]) -> String? {
        for field in fields {
            var rest = field[...]
            while let open = rest.firstIndex(of: "<"), let close = rest[open...].firstIndex(of: ">") {
                let parameters = rest[rest.index(after: close)...]
                let end = parameters.firstIndex(of: "<") ?? parameters.endIndex
                let isNext = parameters[..<end].split(separator: ";").contains { parameter in
                    let sides = parameter.split(separator: "=", maxSplits: 1)
                    guard sides.count == 2, sides[0].trimmingBlanks.lowercased() == "rel" else { return false }
                    return sides[1].prefix { $0 != "," }.trimmingBlanks.lowercased().filter { $0 != "\"" } == "next"
                }
                if isNext { return String(rest[rest.index(after: open)..<close]) }
                rest = parameters
            }
        }
        return nil
    }
}
