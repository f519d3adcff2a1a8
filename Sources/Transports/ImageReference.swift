public import ComposefsBytes
public import ComposefsHashing
package import ComposefsLinuxSystem
public import ComposefsOCIModel

/// A reference to an image, with its transport.
public enum ImageReference: Hashable, Sendable {
    /// `oci:DIR[:TAG]`: an OCI image layout.
    case layout(ImageLocation)
    /// `oci-archive:FILE[:TAG]`: a tar archive of an OCI image layout, possibly compressed.
    case ociArchive(ImageLocation)
    /// `docker-archive:FILE[:TAG]`: an archive in the format of `docker save`.
    case dockerArchive(ImageLocation)
    /// `dir:DIR`: a directory with manifest and blobs, in the format of `skopeo copy`.
    case directory(ByteString)
    /// `containers-storage:NAME`: the storage of podman, buildah and cri-o on this machine.
    case containersStorage(String)
    /// `docker://…`, or a reference without a prefix.
    case registry(RegistryReference)

    /// See `parseReference`.
    ///
    /// - Throws: `OCIError.invalidReference`.
    public init(_ text: String) throws(OCIError) { self = try parseReference(text) }

    /// The reference with its transport. Paths may have bytes that are not text.
    public var bytes: ByteString {
        switch self {
        case .layout(let location): "oci:" + location.text
        case .ociArchive(let location): "oci-archive:" + location.text
        case .dockerArchive(let location): "docker-archive:" + location.text
        case .directory(let path): "dir:" + path
        case .containersStorage(let name): ByteString("containers-storage:" + name)
        case .registry(let reference): ByteString("docker://" + reference.canonical)
        }
    }
}

extension ImageReference: CustomStringConvertible {
    public var description: String { bytes.description }
}

/// What names an image and its source: a value of `ImageReference` or `RegistryReference`, or text, which `parseReference` parses.
public protocol ImageReferenceConvertible: Sendable {
    /// - Throws: `OCIError.invalidReference`.
    func imageReference() throws(OCIError) -> ImageReference
}

extension ImageReference: ImageReferenceConvertible {
    public func imageReference() -> ImageReference { self }
}

extension RegistryReference: ImageReferenceConvertible {
    public func imageReference() -> ImageReference { .registry(self) }
}

extension String: ImageReferenceConvertible {
    public func imageReference() throws(OCIError) -> ImageReference { try parseReference(self) }
}

extension Substring: ImageReferenceConvertible {
    public func imageReference() throws(OCIError) -> ImageReference { try parseReference(String(self)) }
}

/// Parses `TRANSPORT:LOCATION` or a registry reference.
///
/// - Throws: `OCIError.invalidReference`.
public func parseReference(_ text: String) throws(OCIError) -> ImageReference {
    func rest(_ prefix: String) throws(OCIError) -> String? {
        guard text.hasPrefix(prefix) else { return nil }
        let rest = String(text.dropFirst(prefix.count))
        guard !rest.isEmpty else { throw .invalidReference(ByteString(text), .nothingAfter(prefix)) }
        return rest
    }
    for scheme in ["https://", "http://", "oci://"] where text.hasPrefix(scheme) && !text.hasPrefix(scheme + "/") {
        throw .invalidReference(ByteString(text), .scheme(scheme))
    }
    if let rest = try rest("oci:") { return .layout(ImageLocation(rest)) }
    if let rest = try rest("oci-archive:") { return .ociArchive(ImageLocation(rest)) }
    if let rest = try rest("docker-archive:") { return .dockerArchive(ImageLocation(rest)) }
    if let rest = try rest("dir:") { return .directory(ByteString(rest)) }
    if let rest = try rest("containers-storage:") { return .containersStorage(rest) }
    // As in other container tools, a name without a registry refers to Docker Hub after docker://.
    if let rest = try rest("docker://") { return .registry(try RegistryReference(parsing: rest).qualified) }
    for transport in ["docker-daemon:", "ostree:", "sif:", "tarball:"] where text.hasPrefix(transport) {
        throw .invalidReference(ByteString(text), .unsupportedTransport(transport))
    }
    return .registry(try RegistryReference(parsing: text))
}

/// A file or directory, optionally with the name of an image in it: `PATH`, `PATH:NAME`, `PATH:@N` or `PATH@DIGEST`.
///
/// Both paths and names may contain colons (`DIR:docker.io/team/app:1`). The existing files decide where the path ends, for reading and for
/// writing. If no reading of the text names an existing file, the path ends at the first colon after an existing directory. So the same
/// text finds an image after it has been written.
public struct ImageLocation: Hashable, Sendable {
    /// A name of an image in a layout or archive.
    public enum Name: Hashable, Sendable, CustomStringConvertible {
        /// `PATH:NAME`
        case tag(String)
        /// `PATH@sha256:…`
        case digest(ContentDigest)
        /// `PATH:@N`: by its position, counted from 0.
        case index(Int)

        public var description: String {
            switch self {
            case .tag(let tag): tag
            case .digest(let digest): digest.description
            case .index(let index): "@\(index)"
            }
        }
    }

    /// The text without the transport.
    public let text: ByteString

    /// - Parameter text: the reference without the transport.
    public init(_ text: String) { self.text = ByteString(text) }

    private typealias Reading = (path: ByteString, name: Name?)

    /// The path that stands for standard input or output in the name of an archive; `./-` is a file.
    package static let stream: ByteString = "-"

    /// Whether this is `-`, `-:NAME` or `-@DIGEST`: in the name of an archive standard input or output.
    package var isStream: Bool { readings.contains { $0.path == Self.stream } }

    /// The most readings that are looked up.
    private static let readingLimit = 64

    /// All readings of the text, in order of preference: the split at the last colon, unless a slash follows it; the whole text as a path;
    /// the splits at the other colons, from right to left.
    private var readings: [Reading] {
        let bytes = text.bytes
        var splits: [Reading] = []
        for colon in bytes.indices.reversed() where bytes[colon] == UInt8(ascii: ":") && colon > 0 && colon + 1 < bytes.count {
            let (left, right) = (bytes[..<colon], bytes[(colon + 1)...])
            guard let text = String(validating: right, as: UTF8.self) else { continue }
            if let at = left.lastIndex(of: UInt8(ascii: "@")), at > 0,
                let digest = ContentDigest(String(decoding: bytes[(at + 1)...], as: UTF8.self))
            {
                splits.append((path: ByteString(bytes[..<at]), name: .digest(digest)))
            }
            splits.append((path: ByteString(left), name: Self.index(text).map { .index($0) } ?? .tag(text)))
        }
        let whole: Reading = (path: text, name: nil)
        let splitsAtLast = splits.first.map { !$0.path.isEmpty && !Self.hasSlash($0.name) } ?? false
        splits.insert(whole, at: splitsAtLast ? 1 : 0)
        return Array(splits.prefix(Self.readingLimit - 1)) + splits.dropFirst(Self.readingLimit - 1).suffix(1)
    }

    private static func index(_ text: String) -> Int? {
        guard text.utf8.first == UInt8(ascii: "@"), text.utf8.count > 1 else { return nil }
        let digits = text.utf8.dropFirst()
        return digits.allSatisfy { (0x30...0x39).contains($0) } ? Int(String(decoding: digits, as: UTF8.self)) : nil
    }

    private static func hasSlash(_ name: Name?) -> Bool {
        if case .tag(let tag)? = name { tag.utf8.contains(UInt8(ascii: "/")) } else { false }
    }

    /// The first reading whose path exists; if there is none, the one whose parent is the deepest existing directory.
    ///
    /// - Throws: `SystemError` if a path cannot be looked up. It must not count as missing, because another reading names another image or
    ///   another directory to write to.
    package func located() throws(SystemError) -> (path: ByteString, name: Name?) {
        let readings = readings
        if let reading = readings.first(where: { $0.path == Self.stream }) { return reading }
        for reading in readings where try Self.exists(reading.path) { return reading }
        var best = readings.last ?? (path: text, name: nil)
        var bestDepth = -1
        for reading in readings where !reading.path.isEmpty {
            let parent = Self.parent(of: reading.path)
            guard try Self.exists(parent) else { continue }
            let depth = parent.count
            if depth > bestDepth || depth == bestDepth && reading.path.count < best.path.count {
                (best, bestDepth) = (reading, depth)
            }
        }
        return best
    }

    private static func exists(_ path: ByteString) throws(SystemError) -> Bool {
        guard !path.isEmpty else { return false }
        do throws(SystemError) {
            return try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true) != nil
        } catch {
            switch error.errno {
            // Most of the readings are not plausible paths.
            case .notDirectory, .nameTooLong: return false
            default: throw error
            }
        }
    }

    private static func parent(of path: ByteString) -> ByteString {
        let name = path.bytes.lastIndex { $0 != UInt8(ascii: "/") } ?? 0
        guard let slash = path.bytes[..<name].lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == 0 ? "/" : ByteString(path.bytes[..<slash])
    }
}
