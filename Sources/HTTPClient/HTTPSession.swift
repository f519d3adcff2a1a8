package import ComposefsConcurrency
internal import Synchronization

/// Sends requests on one pool of connections. Its calls block; any number of threads may make them at the same time.
package final class HTTPSession: Sendable {
    package static let redirectLimit = 10
    /// The client certificates that are tried with one server.
    private static let clientLimit = 16

    package let options: HTTPOptions
    /// Ends running transfers, and refuses new ones, with `HTTPError.Reason.cancelled`.
    package let cancellation: Cancellation
    private let network: Network
    private let registration: Cancellation.Registration
    /// The client certificate that each host gets, of several, by authority.
    private let clientChoices = Mutex<[String: ClientChoice]>([:])

    private struct ClientChoice {
        var index = 0
        /// Whether the host has responded on a connection with it.
        var isAccepted = false
    }

    /// Starts the network thread.
    package init(_ options: HTTPOptions, cancellation: Cancellation = Cancellation()) throws(HTTPError) {
        let network = try Network(options)
        self.options = options
        self.cancellation = cancellation
        self.network = network
        registration = cancellation.onCancel { network.cancelAll() }
    }

    // MARK: Requests

    /// Sends a request and waits for the header fields of its response, whatever its status.
    ///
    /// Follows redirects of GET and HEAD, and of other methods if the redirect keeps the method and the body can be sent again. Once a redirect
    /// has left the origin of `request.url`, the authorization is not sent any more, even if another redirect leads back.
    package func open(_ request: HTTPRequest, _ policy: some ConnectionPolicy) throws(HTTPError) -> HTTPResponse {
        var request = request
        let first = request.url
        for _ in 0...Self.redirectLimit {
            if cancellation.isCancelled { throw HTTPError(.cancelled, request.url) }
            let response = try exchange(request, policy)
            let status = response.head.status
            guard Self.isRedirect(status, method: request.method), request.form == nil else { return response }
            guard let location = response.head["location"], !location.isEmpty, let next = request.url.resolving(location) else {
                response.cancel()
                throw HTTPError(.missingLocation(status: status), request.url)
            }
            response.drain()
            if request.url.scheme == "https", next.scheme == "http", !policy.allowsDowngrade {
                throw HTTPError(.downgrade(status: status, target: next.display), request.url)
            }
            if !next.hasSameOrigin(as: request.url) { request.authorization = nil }
            request.url = next
        }
        throw HTTPError(.tooManyRedirects(limit: Self.redirectLimit), first)
    }

    private static func isRedirect(_ status: Int, method: String?) -> Bool {
        status == 307 || status == 308 || [301, 302, 303].contains(status) && (method == nil || method == "HEAD")
    }

    /// One request and its response, with each client certificate in turn until the server accepts one.
    private func exchange(_ request: HTTPRequest, _ policy: some ConnectionPolicy) throws(HTTPError) -> HTTPResponse {
        var left = 2 * Self.clientLimit
        while true {
            let connection = try connection(to: request.url, policy)
            let began = ContinuousClock.now
            let transfer = network.start(request, connection)
            do {
                let head = try transfer.waitForHead(until: .now + options.requestTimeout)
                options.observe?(HTTPExchange(request, status: head.status, since: began))
                acceptClient(request.url, connection)
                return HTTPResponse(head: head, url: request.url, transfer: transfer, options: options)
            } catch {
                transfer.cancel()
                options.observe?(HTTPExchange(request, status: nil, since: began))
                left -= 1
                guard left > 0, chooseNextClient(request.url, after: error, connection) else {
                    throw HTTPError(error, request.url, options)
                }
            }
        }
    }

    /// Whether the server at `url` does not speak TLS. Sends a HEAD request without secrets and without checking certificates. False if that
    /// does not give a clear answer.
    package func speaksNoTLS(_ url: HTTPURL, _ policy: some ConnectionPolicy) -> Bool {
        guard !cancellation.isCancelled, var connection = try? connection(to: url, policy) else { return false }
        connection.settings.verifiesTLS = false
        connection.settings.authorities = []
        connection.settings.authorityFile = nil
        connection.settings.clients = []
        let probe = HTTPRequest(url, method: "HEAD", connectTimeout: min(options.connectTimeout, .seconds(5)))
        let transfer = network.start(probe, connection)
        defer { transfer.cancel() }
        do throws(TransferFailure) {
            _ = try transfer.waitForHead(until: .now + options.requestTimeout)
            return false
        } catch {
            return HTTPError(error, url, options).suggestsPlainHTTP
        }
    }

    /// Begins a request whose body is produced while it is sent, on a connection of its own. The caller writes the body and then calls
    /// `HTTPUpload.response`.
    package func begin(_ request: HTTPRequest, _ policy: some ConnectionPolicy) throws(HTTPError) -> HTTPUpload {
        if cancellation.isCancelled { throw HTTPError(.cancelled, request.url) }
        var request = request
        request.mayShareConnection = false
        return HTTPUpload(transfer: network.start(request, try connection(to: request.url, policy)), options: options)
    }

    // MARK: Client certificates

    private func connection(to url: HTTPURL, _ policy: some ConnectionPolicy) throws(HTTPError) -> Connection {
        var connection = Connection()
        do {
            connection.settings = try policy.settings(for: url)
        } catch {
            throw HTTPError(.configuration(error), url)
        }
        if !connection.settings.clients.isEmpty {
            let chosen = clientChoices.withLock { $0[url.authority]?.index ?? 0 }
            connection.clientIndex = min(chosen, connection.settings.clients.count - 1)
        }
        return connection
    }

    /// Chooses another certificate if the server rejected this one; false if it did not, or if there is none left. A connection has one
    /// certificate, and what the server wants is not known before: they are tried in order.
    ///
    /// The server sends an alert and closes. What is seen first depends on timing: often only a broken connection. A broken connection counts
    /// as a rejection unless the host has accepted the certificate before.
    private func chooseNextClient(_ url: HTTPURL, after failure: TransferFailure, _ connection: Connection) -> Bool {
        let count = connection.settings.clients.count
        guard count > 1 else { return false }
        return clientChoices.withLock { choices in
            let current = choices[url.authority] ?? ClientChoice()
            // Another thread may have chosen the next one already.
            if current.index != connection.clientIndex { return failure.isAlert || failure.isBrokenConnection }
            guard failure.isAlert || failure.isBrokenConnection && !current.isAccepted else { return false }
            let next = connection.clientIndex + 1
            choices[url.authority] = ClientChoice(index: next < count ? next : 0)
            return next < count
        }
    }

    private func acceptClient(_ url: HTTPURL, _ connection: Connection) {
        guard connection.settings.clients.count > 1 else { return }
        clientChoices.withLock { choices in
            guard choices[url.authority]?.index ?? 0 == connection.clientIndex else { return }
            choices[url.authority] = ClientChoice(index: connection.clientIndex, isAccepted: true)
        }
    }
}
