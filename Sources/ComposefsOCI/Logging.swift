public import ComposefsRegistry
import ComposefsRepository
import ComposefsTransfer
public import Logging

// The library's hook for swift-log. A logger is a value of a handle or of options; there is no global one. The modules below know closures only.

extension RegistryOptions {
    /// Also passes on to a logger what the client does: warnings at the level `warning`, the endpoints and the origins of credentials at
    /// `debug`, each request at `trace`. Values are in the metadata. Secrets are never logged: neither credentials nor tokens, nor the query
    /// of a URL, which may be signed.
    ///
    /// The closures `warn` and `observe` are still called.
    public func logging(to logger: Logger) -> RegistryOptions {
        var options = self
        let (warn, observe) = (warn, observe)
        options.warn = { message in
            logger.warning("\(message)")
            warn?(message)
        }
        options.observe = { event in
            event.log(to: logger)
            observe?(event)
        }
        return options
    }
}

extension RegistryEvent {
    fileprivate func log(to logger: Logger) {
        switch self {
        case .endpoint(let name, let isMirror, let reference):
            logger.debug("uses an endpoint", metadata: ["endpoint": "\(name)", "mirror": "\(isMirror)", "image": "\(reference)"])
        case .credentials(let registry, let origin?):
            logger.debug("uses credentials", metadata: ["registry": "\(registry)", "origin": "\(origin)"])
        case .credentials(let registry, nil): logger.debug("uses no credentials", metadata: ["registry": "\(registry)"])
        case .request(let method, let url, let status, let duration):
            logger.trace(
                "request",
                metadata: [
                    "method": "\(method)", "url": "\(url)", "status": "\(status.map(String.init) ?? "none")",
                    "milliseconds": "\(Int(duration / .milliseconds(1)))",
                ])
        }
    }
}

extension OpenOptions {
    /// Also logs, at the level `info`, that another process uses the repository, before the wait for it.
    func logging(to logger: Logger?, _ path: ByteString) -> OpenOptions {
        guard let logger else { return self }
        var options = self
        let willWait = willWait
        options.willWait = {
            logger.info("waits for another process", metadata: ["repository": "\(path)"])
            willWait?()
        }
        return options
    }
}

extension PullOptions {
    /// Also logs moved tags and repeated transfers of layers, at the level `info`.
    func logging(to logger: Logger?) -> PullOptions {
        guard let logger else { return self }
        var options = self
        let observer = observer
        options.observer = { event in
            event.log(to: logger)
            observer?(event)
        }
        return options
    }
}

extension PullEvent {
    fileprivate func log(to logger: Logger) {
        switch (component, phase) {
        case (_, .tagMoved(let from, let to)): logger.info("the tag moved", metadata: ["from": "\(from)", "to": "\(to)"])
        case (.layer(let index, let digest), .retrying(let reason, let delay)):
            logger.info(
                "fetches a layer again",
                metadata: ["layer": "\(index)", "digest": "\(digest)", "reason": "\(reason)", "delay": "\(delay)"])
        default: break
        }
    }
}

extension Store {
    /// The options of a registry, with the store's logger if it has one.
    func logged(_ registry: RegistryOptions) -> RegistryOptions { logger.map { registry.logging(to: $0) } ?? registry }
}
