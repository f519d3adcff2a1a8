internal import ComposefsBoot
internal import ComposefsCompression
internal import ComposefsHTTPClient
internal import ComposefsHashing

/// The libraries of the system that the program uses.
package enum LinkedLibraries {
    /// Their names, and the versions of the running libraries. Loads libcurl, which is the only one that is not linked; nil if it cannot be
    /// loaded.
    package static var versions: [(name: String, version: String?)] {
        [
            ("openssl", runningOpenSSLVersion()), ("curl", CurlLibrary.version), ("zstd", runningZstdVersion()),
            ("zlib", runningZlibVersion()),
            ("isa-l", runningIsalVersion()), ("pcre2", runningPcre2Version()),
        ]
    }

    /// Loads what the network needs, before the process gives up reading most files. A failure is reported when a registry is used.
    package static func loadForNetwork() { try? CurlLibrary.load() }
}
