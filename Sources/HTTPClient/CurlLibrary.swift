internal import ComposefsCCurl

/// libcurl as a library of the system, which is loaded when the network is first used.
package enum CurlLibrary {
    /// Loads libcurl and the libraries that it needs, unless they are loaded. Sessions and URLs do it on their own; a process that limits what
    /// it can read does it before. Starts no thread.
    ///
    /// - Throws: `HTTPError.Reason.initialization`, with the text of dlerror(3).
    package static func load() throws(HTTPError) {
        if let text = ccurl_load() {
            throw HTTPError(.initialization(detail: "libcurl is missing or broken: \(String(cString: text))"), nil)
        }
    }

    /// The version of the library, which is loaded for it; nil if it cannot be loaded. curl_version_info(3).
    package static var version: String? { ccurl_version().map { String(cString: $0) } }
}
