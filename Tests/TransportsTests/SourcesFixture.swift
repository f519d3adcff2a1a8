import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Testing

/// A directory that is removed with the value.
final class SourcesFolder {
    private let folder: TestFolder
    var path: ByteString { folder.path }

    init() throws { folder = try TestFolder("sources-test", mode: 0o700) }

    func at(_ name: String) -> String { path.description + "/" + name }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        var parent = path
        for part in name.split(separator: "/").dropLast() {
            parent = parent + "/" + ByteString(String(part))
            _ = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: parent)
        }
        try FileDescriptor.open(path + "/" + ByteString(name), [.writeOnly, .create, .truncate]).writeAll(bytes)
    }

    func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }

    func symlink(_ target: String, _ name: String) throws {
        try FileDescriptor.currentDirectory.symlink(target: ByteString(target), at: path + "/" + ByteString(name))
    }

    func remove(_ name: String) throws { try FileDescriptor.currentDirectory.unlink(at: path + "/" + ByteString(name)) }
}

/// One image with a layer for each of the contents.
struct SourcesImage {
    let layers: [[UInt8]]
    let config: [UInt8]
    let manifest: [UInt8]

    init(_ layers: [[UInt8]], name: String = "image") {
        self.layers = layers
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        config = Array(
            #"{"architecture":"amd64","os":"linux","author":"\#(name)","rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
        let descriptors = layers.map {
            #"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\#(ContentDigest.of($0))","size":\#($0.count)}"#
        }
        manifest = Array(
            """
            {"schemaVersion":2,"config":{"mediaType":"\(MediaType.ociConfig)","digest":"\(ContentDigest.of(config))","size":\(config.count)},\
            "layers":[\(descriptors.joined(separator: ","))]}
            """.utf8)
    }

    var digest: ContentDigest { .of(manifest) }

    /// An entry of index.json.
    func entry(_ name: String?, more: String = "") -> String {
        let annotations = name.map { ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"\($0)\"}" } ?? ""
        return "{\"mediaType\":\"\(MediaType.ociManifest)\",\"digest\":\"\(digest)\",\"size\":\(manifest.count)\(annotations)\(more)}"
    }

    /// Blobs by their path in a layout.
    var blobs: [(path: String, bytes: [UInt8])] {
        ([manifest, config] + layers).map { (path: "blobs/sha256/" + ContentDigest.of($0).hex, bytes: $0) }
    }
}

/// The files of a layout with these images.
func layoutFiles(_ images: [SourcesImage], entries: [String]) -> [(path: String, bytes: [UInt8])] {
    let index = #"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#
    return [(path: "oci-layout", bytes: Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)), (path: "index.json", bytes: Array(index.utf8))]
        + images.flatMap(\.blobs)
}

/// A ustar archive. Hard links have type 1, symbolic links type 2, and the target instead of bytes.
func ustar(_ files: [(path: String, bytes: [UInt8])], links: [(path: String, type: Character, target: String)] = []) -> [UInt8] {
    func header(_ path: String, _ size: Int, _ type: Character, _ target: String) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ at: Int) { block.replaceSubrange(at..<(at + text.utf8.count), with: text.utf8) }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: width - digits.utf8.count) + digits
        }
        put(path, 0)
        put(octal(0o644, 7), 100)
        put(octal(0, 7), 108)
        put(octal(0, 7), 116)
        put(octal(size, 11), 124)
        put(octal(0, 11), 136)
        put("        ", 148)
        put(String(type), 156)
        put(target, 157)
        put("ustar\u{0}00", 257)
        put(octal(block.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ", 148)
        return block
    }
    var archive: [UInt8] = []
    for (path, bytes) in files {
        archive += header(path, bytes.count, path.hasSuffix("/") ? "5" : "0", "") + bytes
        archive += [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512)
    }
    for (path, type, target) in links { archive += header(path, 0, type, target) }
    return archive + [UInt8](repeating: 0, count: 1024)
}

/// A whole blob.
func readBlob(_ source: any ImageSource, _ descriptor: Descriptor) throws -> [UInt8] {
    let reader = try source.openBlob(descriptor)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1000)
    while true {
        let count = try buffer.withUnsafeMutableBytes { try reader.read(into: $0) }
        if count == 0 { return bytes }
        bytes += buffer[..<count]
    }
}

/// Opens a reference and reads everything to which it refers.
func readImage(
    _ reference: String, scratch: ByteString = "/tmp", limits: PullLimits = PullLimits()
) throws -> (SourcesImageRead, any ImageSource) {
    let source = try #require(try parseReference(reference).openLocalSource(scratch: ArchiveScratch(scratch, limits: limits)))
    let found = try resolveManifest(source, platform: Platform(os: "linux", architecture: "amd64"))
    let config = try readBlob(source, found.manifest.config)
    let layers = try found.manifest.layers.map { try readBlob(source, $0) }
    return (SourcesImageRead(manifest: found.manifest, config: config, layers: layers), source)
}

struct SourcesImageRead {
    var manifest: Manifest
    var config: [UInt8]
    var layers: [[UInt8]]
}

/// The message with which a reference is refused, or nil.
func sourceFault(_ reference: String, scratch: ByteString = "/tmp", limits: PullLimits = PullLimits()) -> String? {
    do {
        _ = try readImage(reference, scratch: scratch, limits: limits)
        return nil
    } catch { return "\(error)" }
}
