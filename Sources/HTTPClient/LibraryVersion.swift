internal import ComposefsCCurl

/// The version of the running libcurl; curl_version_info(3).
package func runningCurlVersion() -> String { ccurl_version().map { String(cString: $0) } ?? "unknown" }
