import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransports

/// A repository in a new directory, which is removed with the value.
final class StoreScratch {
    private let folder: TestFolder
    var path: ByteString { folder.path }

    init() throws { folder = try TestFolder("oci-store") }

    var repository: ByteString { path + "/repo" }

    func create(
        _ algorithm: VerityAlgorithm = .sha256, default version: ErofsVersion = .v1, extra: [ErofsVersion] = []
    ) throws -> Repository {
        try Repository.initialize(
            repository,
            RepositoryConfiguration(algorithm: algorithm, erofsFormats: ErofsFormats(default: version, extra: extra), verity: .insecure)
        ).repository
    }

    func directory() throws -> FileDescriptor { try FileDescriptor.open(repository, [.readOnly, .directory]) }

    // MARK: Damage

    func objectPath(_ id: ObjectID) -> ByteString { "objects/" + ByteString(id.objectPath) }

    func removeObject(_ id: ObjectID) throws { try directory().unlink(at: objectPath(id)) }

    /// Other bytes under the object's name.
    func replaceObject(_ id: ObjectID, _ bytes: [UInt8]) throws {
        try removeObject(id)
        try directory().open(at: objectPath(id), [.writeOnly, .create, .exclusive]).writeAll(bytes)
    }

    /// Other bytes of the same length.
    func damageObject(_ id: ObjectID) throws {
        var bytes = try directory().open(at: objectPath(id), .readOnly).readAll(limit: 1 << 24)
        bytes[bytes.count / 2] ^= 1
        try replaceObject(id, bytes)
    }

    func replaceLink(_ path: ByteString, _ target: ByteString) throws {
        let root = try directory()
        if try root.readLinkIfPresent(at: path) != nil { try root.unlink(at: path) }
        try root.symlink(target: target, at: path)
    }

    func removeHint(_ stream: ObjectID) throws {
        try directory().open(at: objectPath(stream), .readOnly).removeExtendedAttribute(LayerHint.attribute)
    }

    /// The number of objects.
    func objectCount() throws -> Int {
        let root = try directory()
        guard try root.statusIfPresent(at: "objects") != nil else { return 0 }
        let objects = try root.open(at: "objects", [.readOnly, .directory])
        return try objects.entries().reduce(0) { count, entry in
            try count + objects.open(at: entry.name, [.readOnly, .directory]).entries().count
        }
    }
}

/// A ustar archive with the header fields of the golden values: octal digits and NUL, and zeros for everything optional.
struct LayerArchive {
    private var entries: [UInt8] = []

    /// With the end marker.
    var bytes: [UInt8] { entries + [UInt8](repeating: 0, count: 1024) }
    var diffID: ContentDigest { .of(bytes) }

    mutating func add(
        _ path: String, type: Character = "0", mode: Int = 0o700, time: Int = 0, content: [UInt8] = [], link: String = "",
        device: (major: Int, minor: Int)? = nil, attributes: [(name: String, value: [UInt8])] = []
    ) {
        if !attributes.isEmpty {
            let records = attributes.flatMap { Self.record("SCHILY.xattr." + $0.name, $0.value) }
            entries += Self.member("PaxHeader/" + path, "x", 0o644, 0, records, "", nil)
        }
        entries += Self.member(path, type, mode, time, content, link, device)
    }

    func adding(_ path: String, _ content: [UInt8] = [], mode: Int = 0o644) -> LayerArchive {
        var copy = self
        copy.add(path, mode: mode, content: content)
        return copy
    }

    private static func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
        let rest = 1 + key.utf8.count + 1 + value.count + 1
        var length = rest + 1
        while rest + String(length).utf8.count != length { length += 1 }
        return Array("\(length) \(key)=".utf8) + value + [0x0a]
    }

    private static func member(
        _ path: String, _ type: Character, _ mode: Int, _ time: Int, _ content: [UInt8], _ link: String, _ device: (major: Int, minor: Int)?
    ) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ at: Int) { block.replaceSubrange(at..<(at + text.utf8.count), with: text.utf8) }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: width - digits.utf8.count) + digits
        }
        put(path, 0)
        put(octal(mode, 7), 100)
        put(octal(0, 7), 108)
        put(octal(0, 7), 116)
        put(octal(content.count, 11), 124)
        put(octal(time, 11), 136)
        put("        ", 148)
        put(String(type), 156)
        put(link, 157)
        put("ustar\u{0}00", 257)
        if let device {
            put(octal(device.major, 7), 329)
            put(octal(device.minor, 7), 337)
        }
        put(octal(block.reduce(0) { $0 + Int($1) }, 7) + "\u{0}", 148)
        return block + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    /// One file of zeros, like the layers alpha, beta and gamma of the golden values.
    static func zeros(_ name: String, _ count: Int) -> LayerArchive {
        var archive = LayerArchive()
        archive.add(name, content: [UInt8](repeating: 0, count: count))
        return archive
    }
}

/// An image in memory. The bytes that it provides can be made to differ from its documents.
final class ArraySource: ImageSource {
    struct Layer {
        var blob: [UInt8]
        var diffID: ContentDigest
        var mediaType = "application/vnd.oci.image.layer.v1.tar"

        init(_ archive: LayerArchive) {
            blob = archive.bytes
            diffID = archive.diffID
        }

        init(blob: [UInt8], diffID: ContentDigest, mediaType: String) {
            self.blob = blob
            self.diffID = diffID
            self.mediaType = mediaType
        }
    }

    let canonicalName: String
    let manifest: [UInt8]
    let config: [UInt8]
    private let expected: Descriptor?
    private let blobs: Mutex<[ContentDigest: [UInt8]]>
    private let log = Mutex<[ContentDigest]>([])

    /// - Parameter diffIDs: The diff IDs in the config, instead of those of the layers.
    init(
        _ layers: [Layer], name: String = "localhost/test:latest", diffIDs: [ContentDigest]? = nil, labels: String = "",
        expected: Descriptor? = nil, configType: String? = MediaType.ociConfig
    ) {
        canonicalName = name
        let list = (diffIDs ?? layers.map(\.diffID)).map { "\"\($0)\"" }.joined(separator: ",")
        config = Array(
            #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(list)]}\#(labels)}"#.utf8)
        manifest = Self.manifest(config: config, type: configType, layers.map { ($0.blob, $0.mediaType) })
        self.expected = expected
        var blobs = [ContentDigest.of(config): config]
        for layer in layers { blobs[.of(layer.blob)] = layer.blob }
        self.blobs = Mutex(blobs)
    }

    /// An artifact.
    init(artifact contents: [[UInt8]], name: String = "localhost/artifact:latest") {
        canonicalName = name
        config = Array("{}".utf8)
        manifest = Self.manifest(config: config, type: MediaType.ociEmpty, contents.map { ($0, "application/octet-stream") })
        expected = nil
        var blobs = [ContentDigest.of(config): config]
        for blob in contents { blobs[.of(blob)] = blob }
        self.blobs = Mutex(blobs)
    }

    private static func manifest(config: [UInt8], type: String?, _ layers: [(blob: [UInt8], type: String)]) -> [UInt8] {
        func descriptor(_ bytes: [UInt8], _ type: String?) -> String {
            let member = type.map { #""mediaType":"\#($0)","# } ?? ""
            return #"{\#(member)"digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)}"#
        }
        let list = layers.map { descriptor($0.blob, $0.type) }.joined(separator: ",")
        return Array(
            #"{"schemaVersion":2,"mediaType":"\#(MediaType.ociManifest)","config":\#(descriptor(config, type)),"layers":[\#(list)]}"#.utf8)
    }

    var digest: ContentDigest { .of(manifest) }
    var configDigest: ContentDigest { .of(config) }
    /// Blobs that were opened, in order.
    var opened: [ContentDigest] { log.withLock { $0 } }

    /// Provides other bytes instead of a blob's; nil makes opening it fail.
    func replace(_ digest: ContentDigest, with bytes: [UInt8]?) { blobs.withLock { $0[digest] = bytes } }

    func rootManifest() -> SourceManifest { SourceManifest(bytes: manifest, mediaType: MediaType.ociManifest, expected: expected) }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] { throw NoBlob(digest: descriptor.digest) }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        log.withLock { $0.append(descriptor.digest) }
        guard let bytes = blobs.withLock({ $0[descriptor.digest] }) else { throw NoBlob(digest: descriptor.digest) }
        return ArrayBlob(bytes)
    }

    struct NoBlob: Error, CustomStringConvertible {
        var digest: ContentDigest
        var description: String { "the source has no blob \(digest)" }
    }
}

/// Provides its bytes in parts of unusual sizes.
final class ArrayBlob: BlobReader {
    private let bytes: [UInt8]
    private var position = 0
    private let chunk: Int

    init(_ bytes: [UInt8], chunk: Int = 1777) {
        self.bytes = bytes
        self.chunk = chunk
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, chunk, bytes.count - position)
        bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position..<(position + count)])) }
        position += count
        return count
    }
}

/// The text of the error that `body` throws, or nil.
func refusal(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch {
        return "\(error)"
    }
}

func objectID(_ hex: String) throws -> ObjectID { try #require(ObjectID(hex: hex)) }

extension ImageStore {
    /// A layer's reassembled archive.
    func archive(of stream: ObjectID) throws -> [UInt8] {
        var bytes: [UInt8] = []
        try readLayer(stream) { bytes += $0 }
        return bytes
    }

    func dumpLines(of stream: ObjectID) throws -> String {
        var bytes: [UInt8] = []
        try forEachDumpLine(of: stream) { bytes += $0 }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The report of checking one or all images, one line per problem.
    func faults(_ only: ByteString? = nil, deep: Bool = true, metadataOnly: Bool = false) throws -> [String] {
        try check(only, ImageCheckOptions(metadataOnly: metadataOnly, deep: deep)).problems.map(\.description)
    }
}
