internal import ComposefsBoot
internal import ComposefsCompression
internal import ComposefsHTTPClient
internal import ComposefsHashing

/// The libraries of the system that this process uses, for reports about the program.
package enum LinkedLibraries {
    /// Their names, and the versions of the running libraries.
    package static var versions: [(name: String, version: String)] {
        [
            ("openssl", runningOpenSSLVersion()), ("curl", runningCurlVersion()), ("zstd", runningZstdVersion()),
            ("zlib", runningZlibVersion()),
            ("isa-l", runningIsalVersion()), ("pcre2", runningPcre2Version()),
        ]
    }
}
