internal import ComposefsCOpenSSL

/// The version of the running OpenSSL; OpenSSL_version(3).
package func runningOpenSSLVersion() -> String { String(cString: OpenSSL_version(OPENSSL_FULL_VERSION_STRING)) }
