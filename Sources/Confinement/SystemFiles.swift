public import ComposefsBytes
internal import ComposefsLinuxSystem

/// Files of the system that libraries read at any time: the C library, OpenSSL, name services.
public enum SystemFiles {
    /// For every process: shared libraries and their configuration, OpenSSL's configuration, users and groups, /proc.
    ///
    /// /proc as a whole: the kernel may make the entries of this process anew at any time, and a rule holds for one entry. What belongs to
    /// processes outside of the confinement is not readable there all the same, because Landlock refuses to inspect them.
    static var readable: [ByteString] {
        [
            "/usr", "/lib", "/lib64", "/proc", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf",
            "/etc/pki/tls/openssl.d", "/etc/crypto-policies", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/var/lib/sss/mc",
            "/dev/zero", "/dev/random", "/dev/urandom",
        ] + variables(["OPENSSL_CONF", "OPENSSL_MODULES"])
    }

    static let writable: [ByteString] = ["/dev/null", "/dev/tty"]

    /// For connections: name resolution and the certificates of authorities.
    public static var network: [ByteString] {
        [
            "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/resolv.conf", "/etc/services", "/etc/protocols", "/etc/ssl/certs",
            "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust", "/etc/ca-certificates",
            "/var/lib/ca-certificates", "/run/nscd", "/var/run/nscd", "/run/avahi-daemon",
        ] + resolverDirectory + variables(["SSL_CERT_FILE", "SSL_CERT_DIR"])
    }

    /// The directory of the file that /etc/resolv.conf leads to, if it is not /etc: its manager replaces the file when the network changes, and
    /// a rule for the old file would not hold for the new one.
    private static var resolverDirectory: [ByteString] {
        guard let file = try? FileDescriptor.open("/etc/resolv.conf", .pathOnly) else { return [] }
        let directory = FileDescriptor.split(file.kernelPath).directory
        return directory == "/etc" || directory.count <= 1 ? [] : [directory]
    }

    private static func variables(_ names: [String]) -> [ByteString] { names.compactMap { Host.environment($0) }.filter { !$0.isEmpty } }
}
