import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsRepository
import ComposefsTestSupport
import Testing

@testable import ComposefsRegistry

/// An image of a few layers, each a plain archive with one file that does not compress.
struct TestImage: Sendable {
    let layers: [[UInt8]]
    let config: [UInt8]
    let manifest: [UInt8]

    static let manifestType = "application/vnd.oci.image.manifest.v1+json"
    static let shared = TestImage(sizes: [700_000, 300_000, 90_000])

    var digest: ContentDigest { .of(manifest) }

    init(sizes: [Int]) {
        layers = sizes.enumerated().map { Self.archive(name: "file\($0)", Self.noise($1, seed: UInt64($0) + 1)) }
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        config = Array(#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
        func descriptor(_ type: String, _ bytes: [UInt8]) -> String {
            #"{"mediaType":"application/vnd.oci.image.\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)}"#
        }
        let list = layers.map { descriptor("layer.v1.tar", $0) }.joined(separator: ",")
        manifest = Array(
            #"{"schemaVersion":2,"mediaType":"\#(Self.manifestType)","config":\#(descriptor("config.v1+json", config)),"layers":[\#(list)]}"#
                .utf8)
    }

    /// Config and layers.
    func blob(_ path: String) -> [UInt8]? {
        ([config] + layers).first { path.hasSuffix("/blobs/\(ContentDigest.of($0))") }
    }

    func path(ofLayer index: Int) -> String { "/v2/team/app/blobs/\(ContentDigest.of(layers[index]))" }

    private static func noise(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed &* 0x9e37_79b9_7f4a_7c15
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }

    /// ustar (POSIX.1-1988), one regular file.
    private static func archive(name: String, _ content: [UInt8]) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int) { header.replaceSubrange(offset..<offset + text.utf8.count, with: Array(text.utf8)) }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: width - digits.count) + digits
        }
        put(name, at: 0)
        put("0000644", at: 100)
        put("0000000", at: 108)
        put("0000000", at: 116)
        put(octal(content.count, 11), at: 124)
        put(octal(1_700_000_000, 11), at: 136)
        put("        ", at: 148)
        put("0", at: 156)
        put("ustar", at: 257)
        put("00", at: 263)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\0 ", at: 148)
        let padding = (512 - content.count % 512) % 512
        return header + content + [UInt8](repeating: 0, count: padding + 1024)
    }
}

extension ScriptedServer.Request {
    /// The start of the Range field; 0 without one.
    var rangeStart: Int {
        guard let range = headers["range"], range.hasPrefix("bytes=") else { return 0 }
        return Int(range.dropFirst(6).prefix { $0 != "-" }) ?? 0
    }
}

extension TestImage {
    /// The response of a correct registry.
    func answer(_ request: ScriptedServer.Request) -> [ScriptedServer.Action] {
        if request.path.contains("/manifests/") {
            return [.reply(200, ["Content-Type": Self.manifestType, "Docker-Content-Digest": digest.description], manifest)]
        }
        guard let blob = blob(request.path) else { return [.reply(404)] }
        return [part(of: blob, request)]
    }

    func part(of blob: [UInt8], _ request: ScriptedServer.Request) -> ScriptedServer.Action {
        let start = request.rangeStart
        guard start > 0 else { return .reply(200, [:], blob) }
        return .reply(206, ["Content-Range": "bytes \(start)-\(blob.count - 1)/\(blob.count)"], Array(blob[start...]))
    }

    /// The same, ending with a broken connection after some bytes.
    func part(of blob: [UInt8], _ request: ScriptedServer.Request, first count: Int, then end: ScriptedServer.Action) -> [ScriptedServer
        .Action]
    {
        let start = request.rangeStart
        guard start + count < blob.count else { return [part(of: blob, request)] }
        var headers = ["Content-Length": "\(blob.count - start)"]
        if start > 0 { headers["Content-Range"] = "bytes \(start)-\(blob.count - 1)/\(blob.count)" }
        return [.reply(start > 0 ? 206 : 200, headers, Array(blob[start..<start + count])), .pause(.milliseconds(20)), end]
    }
}

/// `bytes` as one gzip member of stored blocks (RFC 1951 §3.2.4, RFC 1952).
func gzipped(_ bytes: [UInt8]) -> [UInt8] {
    var packed = GzipMember.header
    for start in stride(from: 0, to: bytes.count, by: 0xffff) {
        let block = bytes[start..<min(start + 0xffff, bytes.count)]
        let (low, high) = (UInt8(truncatingIfNeeded: block.count), UInt8(truncatingIfNeeded: block.count >> 8))
        packed += [block.endIndex == bytes.count ? 1 : 0, low, high, ~low, ~high] + block
    }
    var checksum = GzipChecksum()
    bytes.withUnsafeBytes { checksum.update($0) }
    return packed + GzipMember.trailer(checksum)
}
