internal import ComposefsHTTPClient
internal import ComposefsHashing
internal import ComposefsTransports

/// The requests that write to a registry (distribution-spec, pushing).
extension RegistryClient {
    // MARK: Looking

    /// Whether the registry has the blob in this repository, by a HEAD request. If the registry does not say, the answer is no: the blob is
    /// sent, and the registry decides then.
    func hasBlob(_ repository: RemoteRepository, _ digest: ContentDigest, size: UInt64) throws(RegistryError) -> Bool {
        do throws(RegistryError) {
            return try retrying(repository) { () throws(Failure) in
                let response = try open(
                    repository, "/v2/\(repository.name)/blobs/\(digest)", headers: [], method: "HEAD",
                    for: .blob(repository: repository.fullName))
                response.drain()
                guard let length = response.head.contentLength else { return true }
                // A proxy in front of the registry may have removed the length together with the body.
                if length == 0, size > 0 { return false }
                guard length == size else {
                    throw Failure(.storedSize(url: response.url.display, size: length, expected: size))
                }
                return true
            }
        } catch {
            if let status = error.status, [400, 403, 404, 405, 410, 501].contains(status) { return false }
            throw error
        }
    }

    // MARK: Uploads

    /// Starts an upload, or mounts the blob from another repository. Returns the upload's URL; nil if the blob was mounted.
    func beginUpload(
        _ repository: RemoteRepository, mounting digest: ContentDigest? = nil
    ) throws(Failure) -> HTTPURL? {
        var query: String?
        if let digest, let source = repository.alsoRead {
            query = "mount=\(percentEncoded(digest.description))&from=\(percentEncoded(source))"
        }
        let request = RegistryError.Request.upload(repository: repository.fullName)
        let response = try open(
            repository, "/v2/\(repository.name)/blobs/uploads/", query: query, headers: [], method: "POST", body: .bytes([]),
            for: request)
        response.drain()
        if response.head.status == 201, digest != nil { return nil }
        guard response.head.status == 202 else { throw unexpected(response, request) }
        return try uploadLocation(repository, response)
    }

    /// The Location field of a response about an upload. The registry chooses it; secrets are sent only to the registry's own origin.
    func uploadLocation(_ repository: RemoteRepository, _ response: HTTPResponse) throws(Failure) -> HTTPURL {
        guard let location = response.head["location"], !location.isEmpty, let url = response.url.resolving(location) else {
            throw Failure(.missingLocation(url: response.url.display, status: response.head.status))
        }
        if response.url.scheme == "https", url.scheme == "http", session.tlsVerify(repository) != false {
            throw Failure(.uploadWithoutTLS(url: response.url.display, location: url.display))
        }
        return url
    }

    /// Sends a request without a body to an upload's URL. Returns any status but 401; after a 401 it renews the authorization and sends the
    /// request again.
    func send(
        _ repository: RemoteRepository, to url: HTTPURL, method: String, for request: RegistryError.Request
    ) throws(Failure) -> HTTPResponse {
        var authorization = try uploadAuthorization(repository, url)
        for isFirst in [true, false] {
            let headers = ["Accept-Encoding: identity", "Content-Type: application/octet-stream"]
            let response = try session.open(
                url, for: repository, headers: headers, authorization: authorization, method: method,
                body: method == "PUT" ? .bytes([]) : .none)
            guard response.head.status == 401, isFirst, isOwn(response.url, repository) else { return response }
            authorization = try renewed(repository, after: response, rejected: authorization, request)
        }
        throw Failure(.authorizationRejected(request, url: url.display))
    }

    /// Starts a request to an upload's URL whose body is produced while it is sent.
    func beginSending(
        _ repository: RemoteRepository, to url: HTTPURL, method: String, _ body: UploadBody, size: UInt64?
    ) throws(Failure) -> (upload: HTTPUpload, authorization: String?) {
        let authorization = try uploadAuthorization(repository, url)
        // Without an empty Expect field libcurl waits one second for "100 Continue", which many servers never send.
        let upload = try session.begin(
            url, for: repository, headers: ["Content-Type: application/octet-stream", "Accept-Encoding: identity", "Expect:"],
            authorization: authorization,
            method: method, body: body, size: size)
        return (upload, authorization)
    }

    /// Its response. A 401 renews the authorization, and is a failure that another attempt may repair.
    func finishSending(
        _ repository: RemoteRepository, _ sending: (upload: HTTPUpload, authorization: String?),
        for request: RegistryError.Request
    ) throws(Failure) -> HTTPResponse {
        let response: HTTPResponse
        do { response = try sending.upload.response() } catch { throw Failure(error) }
        guard response.head.status == 401, isOwn(response.url, repository) else { return response }
        _ = try renewed(repository, after: response, rejected: sending.authorization, request)
        throw Failure(.authorizationRejected(request, url: response.url.display), retry: .transient(after: nil))
    }

    private func isOwn(_ url: HTTPURL, _ repository: RemoteRepository) -> Bool {
        baseURL(of: repository).map { url.hasSameOrigin(as: $0) } ?? false
    }

    private func uploadAuthorization(_ repository: RemoteRepository, _ url: HTTPURL) throws(Failure) -> String? {
        isOwn(url, repository) ? try authorizer.authorization(for: repository) : nil
    }

    /// - Throws: if there is no other authorization than the rejected one.
    private func renewed(
        _ repository: RemoteRepository, after response: HTTPResponse, rejected: String?, _ request: RegistryError.Request
    ) throws(Failure) -> String {
        let challenges = Challenge.parse(response.head.all("www-authenticate"))
        var refused = session.response(response, to: request)
        let renewed = try authorizer.renew(repository, challenges, rejected: rejected, from: baseURL(of: repository) ?? response.url)
        guard renewed != rejected else {
            refused.credentials = authorizer.credentials(for: repository)
            throw Failure(.status(refused))
        }
        return renewed
    }

    func unexpected(_ response: HTTPResponse, _ request: RegistryError.Request) -> Failure {
        if response.head.status >= 400 { return session.failure(status: response, for: request) }
        response.cancel()
        return Failure(.unexpectedStatus(request, url: response.url.display, status: response.head.status))
    }

    // MARK: Manifests

    /// Sends a manifest, by tag or digest. Returns whether the registry says that it has recorded the manifest as a referrer of its
    /// subject.
    func putManifest(
        _ repository: RemoteRepository, reference: String, _ bytes: [UInt8], mediaType: String, digest: ContentDigest
    ) throws(RegistryError) -> Bool {
        let request = RegistryError.Request.manifest(
            "\(repository.fullName)\(reference == digest.description ? "@" : ":")\(reference)")
        return try retrying(repository) { () throws(Failure) in
            let response = try open(
                repository, "/v2/\(repository.name)/manifests/\(reference)", headers: ["Content-Type: " + mediaType, "Expect:"],
                method: "PUT", body: .bytes(bytes), for: request)
            response.drain()
            if let announced = response.head["docker-content-digest"], let other = ContentDigest(announced), other != digest,
                other.algorithm == digest.algorithm
            {
                throw Failure(.digestMismatch(.pushed, url: response.url.display, actual: other, expected: digest))
            }
            return response.head["oci-subject"] != nil
        }
    }
}
