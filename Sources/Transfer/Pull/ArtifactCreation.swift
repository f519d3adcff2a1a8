public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports
import Synchronization

/// An artifact that is made of files, such as a signature or a bill of materials.
public struct NewArtifact: Sendable {
    /// A file of the artifact.
    public struct File: Sendable, Hashable {
        /// Where it is read.
        public var path: ByteString
        /// Content that is in no file; `path` has no meaning then.
        package var content: [UInt8]?
        /// By default the type that oras gives to files, of a tar archive.
        public var mediaType: String
        /// Added to the file's descriptor; `org.opencontainers.image.title` is the name.
        public var annotations: [String: String]

        /// - Parameter title: the name of the file when it is fetched; nil for that in `path`, without the directories if the path is absolute or
        ///   leads out of the current directory.
        public init(_ path: ByteString, mediaType: String? = nil, title: String? = nil, annotations: [String: String] = [:]) {
            self.path = path
            self.mediaType = mediaType ?? Self.defaultType
            self.annotations = annotations
            if let title = title ?? Self.title(of: path) { self.annotations[Self.titleKey] = title }
        }

        /// A file that is in memory.
        package init(content: [UInt8], mediaType: String, annotations: [String: String]) {
            path = ""
            self.content = content
            self.mediaType = mediaType
            self.annotations = annotations
        }

        static let defaultType = "application/vnd.oci.image.layer.v1.tar"
        private static let titleKey = "org.opencontainers.image.title"

        private static func title(of path: ByteString) -> String? {
            var parts: [ArraySlice<UInt8>] = []
            var leaves = path.bytes.first == UInt8(ascii: "/")
            for part in path.bytes.split(separator: UInt8(ascii: "/")) where !part.elementsEqual(".".utf8) {
                if part.elementsEqual("..".utf8) {
                    if parts.popLast() == nil { leaves = true }
                } else {
                    parts.append(part)
                }
            }
            if leaves { parts = Array(parts.suffix(1)) }
            return ByteString(Array(parts.joined(separator: [UInt8(ascii: "/")]))).utf8Text
        }
    }

    /// What kind of artifact it is, as a media type.
    public var artifactType: String
    public var files: [File]
    /// Annotations of the manifest. `org.opencontainers.image.created` is added if it is missing.
    public var annotations: [String: String]

    public init(artifactType: String, files: [File], annotations: [String: String] = [:]) {
        self.artifactType = artifactType
        self.files = files
        self.annotations = annotations
    }
}

/// Why an artifact cannot be made.
public enum NewArtifactError: Error, Sendable, CustomStringConvertible {
    /// Neither `type/subtype` nor within the limit of RFC 6838.
    case invalidMediaType(String)
    /// An annotation that must be a time in the form of RFC 3339, and its value.
    case invalidTime(String, String)
    /// It has neither a file nor an annotation.
    case empty
    case notRegularFile(ByteString)
    /// The same file, with its name and type, is there twice.
    case duplicate(ByteString)

    public var description: String {
        switch self {
        case .invalidMediaType(let type):
            "\"\(ByteString(type).description)\" is no media type: TYPE/SUBTYPE, such as application/spdx+json"
        case .invalidTime(let key, let value):
            "the annotation \(ByteString(key).description) is \"\(ByteString(value).description)\", not a time such as 2026-11-21T04:33:49Z"
        case .empty: "the artifact has neither a file nor an annotation"
        case .notRegularFile(let path): "\(path) is not a regular file"
        case .duplicate(let path): "\(path) is named twice"
        }
    }
}

extension ImageStore {
    /// Makes an artifact of files, stores it and records it as a referrer of a stored image, in one durable step.
    ///
    /// The manifest is that of OCI 1.1 with the empty config, with the members, their order and the form that oras writes, so the same input has
    /// the same digest.
    ///
    /// - Parameters:
    ///   - artifact: its type, files and annotations.
    ///   - subject: the digest of the image's manifest.
    ///   - cancellation: ends the work with `CancellationError`.
    /// - Returns: the digest of the artifact's manifest.
    /// - Throws: `ImageStoreError.noSuchImage`, `NewArtifactError`, `PullError` if a file changes meanwhile, `RepositoryError`, `SystemError`.
    @discardableResult
    public func addReferrer(
        _ artifact: NewArtifact, to subject: ContentDigest, _ cancellation: Cancellation = Cancellation()
    ) throws -> ContentDigest {
        guard let image = try image(subject) else { throw ImageStoreError.noSuchImage(ByteString(subject.description)) }
        return try repository.storeAsOne {
            try publish(artifact, of: image.manifest, subject, Repository.Publication(), cancellation)
        }
    }

    /// Stores an artifact and publishes it as a referrer of an image, together with the content of `publication`, which may be that image.
    func publish(
        _ artifact: NewArtifact, of subject: Manifest, _ subjectDigest: ContentDigest, _ publication: Repository.Publication,
        _ cancellation: Cancellation
    ) throws -> ContentDigest {
        let source = try ArtifactSource(artifact, of: subject, subjectDigest, cancellation)
        let manifest = try Manifest(parsing: source.bytes, mediaType: MediaType.ociManifest)
        let digest = ContentDigest.of(source.bytes)
        var options = PullOptions()
        options.cancellation = cancellation
        let pull = ImagePull(source: source, repository: repository, options: options, reporter: PullReporter(nil))
        var publication = publication
        Self.record(digest, of: subjectDigest, in: &publication)
        _ = try pull.storeArtifact(manifest, digest, ArtifactSource.emptyConfig, tag: nil, publication, PullReporter(nil))
        return digest
    }
}

/// The manifest of a new artifact, and its files as blobs.
private final class ArtifactSource: ImageSource {
    static let emptyConfig = Array("{}".utf8)
    private static let createdKey = "org.opencontainers.image.created"

    let bytes: [UInt8]
    private let files: [ContentDigest: NewArtifact.File]
    let canonicalName = "artifact"

    init(_ artifact: NewArtifact, of subject: Manifest, _ subjectDigest: ContentDigest, _ cancellation: Cancellation) throws {
        guard !artifact.files.isEmpty || !artifact.annotations.isEmpty else { throw NewArtifactError.empty }
        for type in [artifact.artifactType] + artifact.files.map(\.mediaType) where !MediaType.isWellFormed(type) {
            throw NewArtifactError.invalidMediaType(type)
        }
        var annotations = artifact.annotations
        if let created = annotations[Self.createdKey] {
            guard isTime(created) else { throw NewArtifactError.invalidTime(Self.createdKey, created) }
        } else {
            annotations[Self.createdKey] = Host.rfc3339(Host.currentTime().seconds)
        }
        var files: [ContentDigest: NewArtifact.File] = [:]
        var layers: [JSONValue] = []
        for file in artifact.files {
            let (digest, size) =
                if let content = file.content { (ContentDigest.of(content), UInt64(content.count)) } else {
                    try Self.measure(file.path, cancellation)
                }
            let layer = Self.descriptor(file.mediaType, digest, size, annotations: file.annotations)
            guard !layers.contains(layer) else { throw NewArtifactError.duplicate(file.path) }
            layers.append(layer)
            files[digest] = file
        }
        let empty = Self.descriptor(MediaType.ociEmpty, .of(Self.emptyConfig), UInt64(Self.emptyConfig.count), data: "e30=")
        let members: [(key: String, value: JSONValue)] = [
            ("schemaVersion", 2), ("mediaType", .string(MediaType.ociManifest)), ("artifactType", .string(artifact.artifactType)),
            ("config", empty), ("layers", .array(layers.isEmpty ? [empty] : layers)),
            ("subject", Self.descriptor(subject.mediaType, subjectDigest, UInt64(subject.bytes.count))),
            ("annotations", Self.object(annotations)),
        ]
        bytes = Self.escaped(JSONValue.object(JSONObject(members)).compactBytes)
        self.files = files
    }

    /// Digest and size of a file.
    private static func measure(_ path: ByteString, _ cancellation: Cancellation) throws -> (ContentDigest, UInt64) {
        let file = try open(path)
        var hasher = DigestHasher(.sha256)
        var size: UInt64 = 0
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        while true {
            try cancellation.check()
            let count = try file.read(into: buffer)
            if count == 0 { return (hasher.finalize(), size) }
            hasher.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            size += UInt64(count)
        }
    }

    private static func open(_ path: ByteString) throws -> FileDescriptor {
        // Not blocking: a FIFO of this name must not block the caller.
        let file = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
        guard try file.status().kind == .regular else { throw NewArtifactError.notRegularFile(path) }
        return file
    }

    // MARK: JSON in the form of Go's encoder

    /// Members in the order of image-spec's Go types.
    private static func descriptor(
        _ type: String, _ digest: ContentDigest, _ size: UInt64, annotations: [String: String] = [:], data: String? = nil
    ) -> JSONValue {
        var members: [(key: String, value: JSONValue)] = [
            ("mediaType", .string(type)), ("digest", .string(digest.description)), ("size", JSONValue(size)),
        ]
        if !annotations.isEmpty { members.append(("annotations", object(annotations))) }
        if let data { members.append(("data", .string(data))) }
        return .object(JSONObject(members))
    }

    private static func object(_ texts: [String: String]) -> JSONValue {
        let sorted = texts.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        return .object(JSONObject(sorted.map { (key: $0.key, value: JSONValue.string($0.value)) }))
    }

    /// Go escapes what could end a script in HTML, and the two line separators of Unicode. Outside of strings none of these can occur.
    private static func escaped(_ bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "<"): out += Array(#"\u003c"#.utf8)
            case UInt8(ascii: ">"): out += Array(#"\u003e"#.utf8)
            case UInt8(ascii: "&"): out += Array(#"\u0026"#.utf8)
            case 0xe2 where index + 2 < bytes.count && bytes[index + 1] == 0x80 && (bytes[index + 2] == 0xa8 || bytes[index + 2] == 0xa9):
                out += Array((bytes[index + 2] == 0xa8 ? #"\u2028"# : #"\u2029"#).utf8)
                index += 2
            default: out.append(bytes[index])
            }
            index += 1
        }
        return out
    }

    // MARK: ImageSource

    func rootManifest() -> SourceManifest { SourceManifest(bytes: bytes, mediaType: MediaType.ociManifest) }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] { throw missing(descriptor) }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        if let file = files[descriptor.digest] {
            return try file.content.map { DataBlobReader($0) } ?? ArtifactFileReader(try Self.open(file.path))
        }
        guard let data = descriptor.data else { throw missing(descriptor) }
        return DataBlobReader(data)
    }

    private func missing(_ descriptor: Descriptor) -> OCIError {
        .notFound(source: ByteString(canonicalName), descriptor.missing)
    }
}

private final class ArtifactFileReader: BlobReader {
    private let file: FileDescriptor

    init(_ file: consuming FileDescriptor) { self.file = file }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int { try file.read(into: buffer) }
}

/// Whether a text is a date and time of RFC 3339, section 5.6.
func isTime(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    func number(_ range: Range<Int>, _ allowed: ClosedRange<Int>) -> Bool {
        guard range.upperBound <= bytes.count, bytes[range].allSatisfy({ (0x30...0x39).contains($0) }) else { return false }
        return allowed.contains(bytes[range].reduce(0) { $0 * 10 + Int($1 - 0x30) })
    }
    func isMark(_ index: Int, _ marks: String) -> Bool { index < bytes.count && marks.utf8.contains(bytes[index]) }
    guard number(0..<4, 0...9999), isMark(4, "-"), number(5..<7, 1...12), isMark(7, "-"), number(8..<10, 1...31), isMark(10, "T"),
        number(11..<13, 0...23), isMark(13, ":"), number(14..<16, 0...59), isMark(16, ":"), number(17..<19, 0...59)
    else { return false }
    var end = 19
    if isMark(end, ".") {
        let digits = bytes[(end + 1)...].prefix { (0x30...0x39).contains($0) }
        guard !digits.isEmpty else { return false }
        end = digits.endIndex
    }
    if isMark(end, "Z") { return end + 1 == bytes.count }
    return isMark(end, "+-") && number((end + 1)..<(end + 3), 0...23) && isMark(end + 3, ":") && number((end + 4)..<(end + 6), 0...59)
        && end + 6 == bytes.count
}
