internal import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsLinuxSystem
internal import Synchronization

/// The certificates for one host, in addition to the system's authorities.
struct HostCertificates: Sendable, Hashable {
    /// Certificates of authorities: PEM files, concatenated.
    var authorities: [UInt8] = []
    /// In the order of their names.
    var clients: [ClientCertificate] = []
}

/// containers-certs.d(5): directories named `HOST[:PORT]`, with `*.crt` for authorities, and `NAME.cert` with `NAME.key` for the client.
final class CertificateDirectories: Sendable {
    private static let fileLimit = 4 << 20

    private let given: ByteString?
    private let parents: [ByteString]
    private let known = Mutex<[String: HostCertificates]>([:])

    /// - Parameter given: one directory for all registries, instead of one for each host.
    init(_ given: ByteString?, _ paths: ConfigurationPaths) {
        self.given = given
        parents = paths.certificates
    }

    /// The certificates for a registry, by its name in references.
    func certificates(forRegistry host: String) throws(RegistryError) -> HostCertificates {
        guard let given else { return try certificates(for: host) }
        return try cached(
            "",
            { () throws(RegistryError) in
                guard let found = try read(given) else {
                    throw RegistryError(.file(.certificateDirectory, given, .missing))
                }
                return found
            })
    }

    /// The certificates for another host that a registry redirects to: a blob storage, a token server.
    func certificates(for host: String) throws(RegistryError) -> HostCertificates {
        // A host that is not the name of a directory has no certificates.
        guard !host.isEmpty, !host.contains("/"), host != ".", host != ".." else { return HostCertificates() }
        return try cached(host) { () throws(RegistryError) in
            for parent in parents {
                if let found = try read(parent + "/" + ByteString(host)) { return found }
            }
            return HostCertificates()
        }
    }

    private func cached(
        _ host: String, _ find: () throws(RegistryError) -> HostCertificates
    ) throws(RegistryError) -> HostCertificates {
        if let found = known.withLock({ $0[host] }) { return found }
        let found = try find()
        known.withLock { $0[host] = found }
        return found
    }

    /// Nil if there is no such directory or it cannot be accessed.
    private func read(_ path: ByteString) throws(RegistryError) -> HostCertificates? {
        let names: [ByteString]
        do throws(SystemError) {
            let directory = try FileDescriptor.open(path, [.readOnly, .directory])
            names = try directory.entries().map(\.name).sorted()
        } catch {
            if [.noEntry, .notDirectory, .accessDenied].contains(error.errno) { return nil }
            throw RegistryError(.file(.certificateDirectory, path, .unreadable(error.errno)))
        }
        var found = HostCertificates()
        for name in names where name.bytes.suffix(4).elementsEqual(".crt".utf8) {
            let file = path + "/" + name
            guard let bytes = try readSmallFile(file, limit: Self.fileLimit, .certificate) else { continue }
            found.authorities += bytes + [UInt8(ascii: "\n")]
        }
        for name in names where name.bytes.suffix(5).elementsEqual(".cert".utf8) {
            let key = ByteString(name.bytes.dropLast(5)) + ".key"
            guard names.contains(key) else { throw RegistryError(.certificateWithoutKey(path + "/" + name, key: key)) }
            guard let pair = [path + "/" + name, path + "/" + key].map(\.utf8Text) as? [String] else { continue }
            found.clients.append(ClientCertificate(certificate: pair[0], key: pair[1]))
        }
        for name in names where name.bytes.suffix(4).elementsEqual(".key".utf8) {
            let certificate = ByteString(name.bytes.dropLast(4)) + ".cert"
            guard names.contains(certificate) else {
                throw RegistryError(.keyWithoutCertificate(path + "/" + name))
            }
        }
        return found
    }
}
