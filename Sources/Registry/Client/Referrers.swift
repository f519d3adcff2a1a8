internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsJSON
internal import ComposefsOCIModel

extension RegistryClient {
    private static let pageLimit = 100
    private static let referrerLimit = 10_000
    private static let indexType = "application/vnd.oci.image.index.v1+json"
    /// The statuses of registries for an unknown path or method.
    private static let statusesWithoutAPI = [400, 404, 405, 406, 410, 501]

    /// The descriptors of manifests whose `subject` is `digest`, in the registry's order (distribution-spec, listing referrers). If the
    /// registry has no referrers API, those in the index that clients keep under the tag of the referrers tag schema; none if that is
    /// missing too.
    ///
    /// - Throws: the API's error, unless it means that there is no API or the tag exists.
    func fetchReferrers(_ repository: RemoteRepository, of digest: ContentDigest) throws(RegistryError) -> [Descriptor] {
        let request = RegistryError.Request.referrers(of: "\(repository.fullName)@\(digest)")
        var path = "/v2/\(repository.name)/referrers/\(digest)"
        var query: String?
        var found: [Descriptor] = []
        for page in 0..<Self.pageLimit {
            let fetched: Page
            do throws(RegistryError) {
                fetched = try retrying(repository) { () throws(Failure) in try fetchPage(repository, path, query, request) }
            } catch {
                // Not every registry without the API returns 404, and a proxy in front of it may return something else.
                guard page == 0, error.concernsOneItem else { throw error }
                if let tagged = try fetchTaggedReferrers(repository, digest, orElse: error) { return tagged }
                guard let status = error.status, Self.statusesWithoutAPI.contains(status) else { throw error }
                return []
            }
            found += fetched.entries
            guard found.count <= Self.referrerLimit else { break }
            guard let next = try Self.next(after: fetched, path, repository) else { return found }
            (path, query) = next
        }
        throw RegistryError(.tooManyReferrers(request, limit: Self.referrerLimit, pages: Self.pageLimit))
    }

    private struct Page {
        var entries: [Descriptor]
        /// The value of the Link field; nil on the last page.
        var link: String?
        var url: HTTPURL
    }

    private func fetchPage(
        _ repository: RemoteRepository, _ path: String, _ query: String?, _ request: RegistryError.Request
    ) throws(Failure) -> Page {
        let response = try open(repository, path, query: query, headers: ["Accept: " + Self.indexType], for: request)
        let bytes = try session.body(of: response, limit: options.manifestLimit, .referrers)
        do throws(RegistryError) {
            let entries = try Self.entries(bytes, response.url.display)
            return Page(entries: entries, link: Self.nextLink(response.head.all("link")), url: response.url)
        } catch {
            throw Failure(error)
        }
    }

    private static func next(
        after page: Page, _ path: String, _ repository: RemoteRepository
    ) throws(RegistryError) -> (path: String, query: String?)? {
        guard let link = page.link else { return nil }
        guard let url = page.url.resolving(link), url.hasSameOrigin(as: page.url) else { throw foreignLink(link, page.url) }
        // After a redirect the list has another path than the requested one.
        if url.target.path == page.url.target.path { return (path, url.target.query) }
        guard url.target.path.hasPrefix("/v2/\(repository.name)/") else { throw foreignLink(link, page.url) }
        return url.target
    }

    private static func foreignLink(_ link: String, _ url: HTTPURL) -> RegistryError {
        RegistryError(.foreignLink(url: url.display, link: link))
    }

    /// Distribution-spec, referrers tag schema: algorithm and digest joined by a dash.
    static func referrersTag(_ digest: ContentDigest) -> String { "\(digest.algorithm.rawValue.prefix(32))-\(digest.hex.prefix(64))" }

    /// The index under that tag with `entry` added; nil if it has the entry already.
    ///
    /// - Throws: if the tag names another document, for example an image, or the subject itself: some registries resolve the tag as a
    ///   digest.
    func taggedReferrers(
        _ repository: RemoteRepository, of subject: ContentDigest, adding entry: Descriptor
    ) throws(RegistryError) -> [UInt8]? {
        var index: JSONValue = ["schemaVersion": 2, "mediaType": .string(Self.indexType), "manifests": []]
        do throws(RegistryError) {
            let tag = Self.referrersTag(subject)
            let fetched = try fetchManifest(repository, reference: tag, expected: nil, limit: options.manifestLimit)
            let entries: [Descriptor]
            do throws(RegistryError) { entries = try Self.entries(fetched.bytes, "\(repository.fullName):\(tag)") } catch {
                throw RegistryError(.referrersTagTaken(tag: tag, error))
            }
            if entries.contains(where: { $0.digest == entry.digest }) { return nil }
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

    /// The entries of the index under the tag of the referrers tag schema; nil if there is none. A document that is no index is not a list
    /// of referrers (distribution-spec).
    ///
    /// - Parameter failure: of the API; thrown if it says more than the tag's own error.
    private func fetchTaggedReferrers(
        _ repository: RemoteRepository, _ digest: ContentDigest, orElse failure: RegistryError
    ) throws(RegistryError) -> [Descriptor]? {
        let tag = Self.referrersTag(digest)
        do throws(RegistryError) {
            let fetched = try fetchManifest(repository, reference: tag, expected: nil, limit: options.manifestLimit)
            return try? Self.entries(fetched.bytes, tag)
        } catch {
            if error.kind == .notFound { return nil }
            let hasNoAPI = failure.status.map { Self.statusesWithoutAPI.contains($0) } ?? false
            throw error.concernsOneItem && !hasNoAPI ? failure : error
        }
    }

    private static func entries(_ bytes: [UInt8], _ origin: String) throws(RegistryError) -> [Descriptor] {
        // Go encodes an empty list as null.
        if let value = try? JSONValue.parse(bytes), value["schemaVersion"] == 2, value["manifests"]?.isNull == true { return [] }
        do { return try ImageIndex(parsing: bytes).manifests } catch {
            throw RegistryError(.invalidReferrers(url: origin, error))
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
