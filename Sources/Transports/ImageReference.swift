public import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// Where a pull comes from.
public enum ImageReference: Hashable, Sendable {
    /// `oci:DIR[:TAG]`: an OCI image layout.
    case layout(ImageLocation)
    /// `oci-archive:FILE[:TAG]`: a tar archive of one, compressed or not.
    case ociArchive(ImageLocation)
    /// `docker-archive:FILE[:TAG]`: what `docker save` writes.
    case dockerArchive(ImageLocation)
    /// `dir:DIR`: manifest and blobs side by side, as `skopeo copy` writes them.
    case directory(ByteString)
    /// `containers-storage:NAME`: the storage of podman, buildah and cri-o on this machine.
    case containersStorage(String)
    /// `docker://…`, or no prefix at all.
    case registry(RegistryReference)
}

/// Reads `TRANSPORT:WHERE` or a registry reference.
public func parseReference(_ text: String) throws(OCIError) -> ImageReference {
    func rest(_ prefix: String) throws(OCIError) -> String? {
        guard text.hasPrefix(prefix) else { return nil }
        let rest = String(text.dropFirst(prefix.count))
        guard !rest.isEmpty else { throw .invalidReference(ByteString(text), "nothing follows \(prefix)") }
        return rest
    }
    for scheme in ["https://", "http://", "oci://"] where text.hasPrefix(scheme) && !text.hasPrefix(scheme + "/") {
        throw .invalidReference(ByteString(text), "references to registries have no \(scheme); write docker://HOST/NAME:TAG")
    }
    if let rest = try rest("oci:") { return .layout(ImageLocation(rest)) }
    if let rest = try rest("oci-archive:") { return .ociArchive(ImageLocation(rest)) }
    if let rest = try rest("docker-archive:") { return .dockerArchive(ImageLocation(rest)) }
    if let rest = try rest("dir:") { return .directory(ByteString(rest)) }
    if let rest = try rest("containers-storage:") { return .containersStorage(rest) }
    // As to other container tools, a name without a registry is Docker Hub's here.
    if let rest = try rest("docker://") { return .registry(try RegistryReference(parsing: rest).qualified) }
    for transport in ["docker-daemon:", "ostree:", "sif:", "tarball:"] where text.hasPrefix(transport) {
        throw .invalidReference(
            ByteString(text), "\(transport) is not supported; copy the image to oci-archive:FILE with skopeo and pull that")
    }
    return .registry(try RegistryReference(parsing: text))
}

/// A file or directory and, after a colon, a name of an image in it.
///
/// `PATH:NAME` is split at the last colon, unless a slash follows it. Both parts may hold colons, so where nothing is at that path, the
/// whole text and then the other colons, from the right to the left, are tried.
public struct ImageLocation: Hashable, Sendable {
    /// A name of an image in a layout or archive.
    public enum Name: Hashable, Sendable, CustomStringConvertible {
        case tag(String)
        /// `PATH@sha256:…`
        case digest(ContentDigest)

        public var description: String {
            switch self {
            case .tag(let tag): tag
            case .digest(let digest): digest.description
            }
        }
    }

    public let text: ByteString

    public init(_ text: String) { self.text = ByteString(text) }

    /// Every way to read the text, the one that the rule says first.
    var readings: [(path: ByteString, name: Name?)] {
        let bytes = text.bytes
        var splits: [(path: ByteString, name: Name?)] = []
        for colon in bytes.indices.reversed() where bytes[colon] == UInt8(ascii: ":") && colon > 0 && colon + 1 < bytes.count {
            let (left, right) = (bytes[..<colon], bytes[(colon + 1)...])
            guard let tag = String(validating: right, as: UTF8.self) else { continue }
            if let at = left.lastIndex(of: UInt8(ascii: "@")), at > 0,
                let digest = ContentDigest(String(decoding: bytes[(at + 1)...], as: UTF8.self))
            {
                splits.append((path: ByteString(bytes[..<at]), name: .digest(digest)))
            }
            splits.append((path: ByteString(left), name: .tag(tag)))
        }
        let whole: (path: ByteString, name: Name?) = (path: text, name: nil)
        let rule = splits.first
        let splitsAtLast = rule.map { !$0.path.isEmpty && !Self.hasSlash($0.name) } ?? false
        splits.insert(whole, at: splitsAtLast ? 1 : 0)
        return splits
    }

    private static func hasSlash(_ name: Name?) -> Bool {
        if case .tag(let tag)? = name { tag.utf8.contains(UInt8(ascii: "/")) } else { false }
    }

    /// The first reading whose path exists; the rule's where none does.
    package func located() -> (path: ByteString, name: Name?) {
        let readings = readings
        for reading in readings.prefix(64) {
            if (try? FileDescriptor.currentDirectory.status(at: reading.path, follow: true)) != nil { return reading }
        }
        return readings.first ?? (path: text, name: nil)
    }
}
