package import ComposefsBytes
import ComposefsCompression
import ComposefsHashing

/// An OCI layout that bytes determine: from all zeros a good image, and with other bytes one with odd fields, wrong digests or damaged blobs.
package struct RandomLayout {
    /// The files by their paths in the layout.
    package private(set) var files: [(path: ByteString, bytes: [UInt8])] = []
    private var choices: Choices

    package init(_ choices: Choices) {
        self.choices = choices
        make()
    }

    // MARK: Layout

    private mutating func make() {
        if !choices.rarely(40) { add("oci-layout", text(#"{"imageLayoutVersion":"\#(choices.rarely(20) ? "9.9" : "1.0.0")"}"#)) }
        var entries: [String] = []
        for _ in 0...choices.below(3) {
            var entry = manifest(depth: 0)
            switch choices.below(6) {
            case 1:
                entry += #","annotations":{"org.opencontainers.image.ref.name":"\#(choices.one(of: ["t", "", "a/b", "\\u0000", "é"]))"}"#
            case 2: entry += #","platform":\#(platform())"#
            case 3: entry += #","artifactType":"application/spdx+json""#
            case 4: entry += ",\(member())"
            default: break
            }
            entries.append("{\(entry)}")
        }
        let index = #"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]\#(choices.rarely(12) ? "," + member() : "")}"#
        add("index.json", damaged(text(index)))
    }

    private mutating func add(_ path: ByteString, _ bytes: [UInt8]) { files.append((path, bytes)) }

    private func text(_ string: String) -> [UInt8] { Array(string.utf8) }

    /// Rarely with a flipped byte, cut short, or with more bytes.
    private mutating func damaged(_ bytes: [UInt8]) -> [UInt8] {
        guard choices.rarely(24), !bytes.isEmpty else { return bytes }
        var bytes = bytes
        switch choices.below(4) {
        case 0: bytes[choices.below(bytes.count)] ^= choices.byte() | 1
        case 1: bytes.removeLast(choices.below(bytes.count) + 1)
        case 2: bytes += choices.bytes(upTo: 40)
        default: bytes = choices.bytes(upTo: 255)
        }
        return bytes
    }

    /// Adds a blob. Returns the members of its descriptor.
    private mutating func blob(_ bytes: [UInt8], _ type: String, mayHoldData: Bool = false) -> String {
        var algorithm = DigestAlgorithm.sha256
        if choices.rarely(20) { algorithm = choices.one(of: DigestAlgorithm.allCases) }
        let digest = ContentDigest.of(bytes, algorithm)
        var named = digest.description
        if choices.rarely(40) {
            named = choices.one(of: [
                "sha256:" + String(repeating: "0", count: 64), "sha256:abc", "sha256:../../../etc/passwd", "md5:" + digest.hex, "",
                digest.hex,
                digest.description.uppercased(),
            ])
        }
        if !choices.rarely(40) { add(ByteString("blobs/\(algorithm.rawValue)/\(digest.hex)"), damaged(bytes)) }
        var size = String(bytes.count)
        if choices.rarely(30) {
            size = choices.one(of: ["0", "-1", "1e3", "9223372036854775807", "18446744073709551616", "\(bytes.count + 1)", "\"1\""])
        }
        var members = #""mediaType":"\#(type)","digest":"\#(named)","size":\#(size)"#
        if mayHoldData, choices.rarely(10) { members += #","data":"\#(Base64.encode(choices.rarely(3) ? [] : bytes))""# }
        if choices.rarely(40) { members += #","urls":["http://127.0.0.1:1/x"]"# }
        if choices.rarely(40) { members += "," + member() }
        return members
    }

    /// A member that does not belong there, or twice.
    private mutating func member() -> String {
        choices.one(of: [
            #""x":1"#, #""mediaType":"a/b""#, #""mediaType":7"#, #""schemaVersion":1"#, #""layers":null"#, #""manifests":{}"#,
            #""config":[]"#,
            #""annotations":{"a":1}"#, #""annotations":{"":"\u0000"}"#, #""size":5"#, #""subject":{}"#, #""digest":"""#,
            #""x":\#(String(repeating: "[", count: 200))"#, #""platform":{"os":"\ud800"}"#, #""artifactType":"\n""#,
        ])
    }

    private mutating func platform() -> String {
        choices.one(of: [
            #"{"os":"linux","architecture":"amd64"}"#, #"{"os":"linux","architecture":"arm64","variant":"v8"}"#,
            #"{"os":"unknown","architecture":"unknown"}"#,
            #"{"os":"windows","architecture":"amd64","os.version":"10"}"#, "{}", #"{"os":1}"#, "null",
        ])
    }

    /// A manifest, or an index of some. Returns the members of its descriptor.
    private mutating func manifest(depth: Int) -> String {
        if depth < 5, choices.rarely(10) {
            let entries = (0...choices.below(3)).map { _ in "{\(manifest(depth: depth + 1)),\"platform\":\(platform())}" }
            let type = "application/vnd.oci.image.index.v1+json"
            return blob(
                text(#"{"schemaVersion":2,"mediaType":"\#(type)","manifests":[\#(entries.joined(separator: ","))]}"#), type,
                mayHoldData: true)
        }
        var descriptors: [String] = []
        var diffIDs: [String] = []
        let isArtifact = choices.rarely(8)
        for _ in 0..<(isArtifact ? choices.below(3) : 1 + choices.below(3)) {
            let (descriptor, diffID) = layer(isArtifact: isArtifact)
            descriptors.append("{\(descriptor)}")
            diffIDs.append("\"\(diffID)\"")
        }
        if choices.rarely(30), !diffIDs.isEmpty { diffIDs.removeLast() }
        if choices.rarely(30), let first = descriptors.first { descriptors.append(first) }
        var config =
            #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(diffIDs.joined(separator: ","))]}"#
        switch choices.below(16) {
        case 12: config += #","created":"\#(choices.one(of: ["2020-01-01T00:00:00Z", "", "x"]))""#
        case 13: config += #","config":{"Env":["A=B",""],"Labels":{"a":"b"},"Cmd":null,"User":"0:0","ExposedPorts":{"1/tcp":{}}}"#
        case 14: config += "," + member()
        case 15: config += #","history":[{"empty_layer":true}],"rootfs":{}"#
        default: break
        }
        config += "}"
        let configType = isArtifact ? "application/vnd.oci.empty.v1+json" : "application/vnd.oci.image.config.v1+json"
        let configDescriptor = blob(damaged(text(isArtifact ? "{}" : config)), choices.rarely(20) ? "a/b" : configType, mayHoldData: true)
        let type =
            choices.rarely(12) ? "application/vnd.docker.distribution.manifest.v2+json" : "application/vnd.oci.image.manifest.v1+json"
        var document =
            #"{"schemaVersion":2,"mediaType":"\#(type)","config":{\#(configDescriptor)},"layers":[\#(descriptors.joined(separator: ","))]"#
        if choices.rarely(8), let subject = files.last(where: { $0.path.hasPrefix("blobs/sha256/") }) {
            let digest = ContentDigest.of(subject.bytes)
            document += #","artifactType":"x/y","subject":{"mediaType":"\#(type)","digest":"\#(digest)","size":\#(subject.bytes.count)}"#
        }
        if choices.rarely(20) { document += "," + member() }
        return blob(damaged(text(document + "}")), type, mayHoldData: true)
    }

    // MARK: Layers

    private mutating func layer(isArtifact: Bool) -> (descriptor: String, diffID: String) {
        let base = isArtifact ? "text/plain" : "application/vnd.oci.image.layer.v1.tar"
        var archive = TarBytes()
        if choices.rarely(12) {
            archive.bytes = choices.bytes(upTo: 1500)
        } else {
            for _ in 0..<choices.below(7) { archive.add(&choices) }
            archive.bytes += [UInt8](repeating: 0, count: choices.one(of: [1024, 0, 512, 1536, 1000]))
        }
        var diffID = ContentDigest.of(archive.bytes).description
        if choices.rarely(30) { diffID = "sha256:" + String(repeating: "1", count: 64) }
        let content = damaged(archive.bytes)
        switch choices.below(4) {
        case 0, 3: return (blob(content, choices.rarely(8) ? base + "+gzip" : base), diffID)
        case 1: return (blob(damaged(gzip(content)), choices.rarely(8) ? base : base + "+gzip"), diffID)
        default:
            var compressor = ZstdCompressor(level: 1)
            var out: [UInt8] = []
            content.withUnsafeBytes { compressor.compress($0, into: &out) }
            compressor.finish(into: &out)
            return (blob(damaged(out), base + "+zstd"), diffID)
        }
    }

    private func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var checksum = GzipChecksum()
        var compressor = GzipBlockCompressor(level: 1)
        return bytes.withUnsafeBytes { content in
            checksum.update(content)
            let block = compressor.pack(content, after: UnsafeRawBufferPointer(start: nil, count: 0), isLast: true)
            return GzipMember.header + block + GzipMember.trailer(checksum)
        }
    }
}

/// A tar archive that bytes determine.
private struct TarBytes {
    var bytes: [UInt8] = []

    private static let names: [String] = [
        "a", "usr/", "usr/x", "usr/bin/y", "a/b", "a/b/c", "./a", "/a", "a//b", "../x", "a/../b", "usr/.wh.x", ".wh.a", "usr/.wh..wh..opq",
        ".wh..wh.x", "", ".", "a\u{1}", "é", String(repeating: "n", count: 100), "usr/link", "link/x", "hard",
    ]

    mutating func add(_ choices: inout Choices) {
        let kind = choices.one(of: Array("005012345670SxgLKD7V".utf8))
        var content: [UInt8] = []
        switch kind {
        case UInt8(ascii: "x"), UInt8(ascii: "g"): content = Self.records(&choices)
        case UInt8(ascii: "L"), UInt8(ascii: "K"): content = Array(choices.one(of: Self.names).utf8) + (choices.rarely(3) ? [] : [0])
        case UInt8(ascii: "0"), UInt8(ascii: "7"), UInt8(ascii: "S"):
            content = choices.rarely(3) ? choices.bytes(upTo: 100) : [UInt8](repeating: 7, count: choices.one(of: [0, 64, 65, 600, 5000]))
        default: break
        }
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: some Sequence<UInt8>, at offset: Int) {
            for (index, byte) in text.prefix(512 - offset).enumerated() { block[offset + index] = byte }
        }
        put(choices.one(of: Self.names).utf8.prefix(100), at: 0)
        put((choices.rarely(6) ? "0007777\0" : "0000644\0").utf8, at: 100)
        put(Self.number(choices.rarely(12) ? choices.integer() : 0, 8, &choices), at: 108)
        put(Self.number(choices.rarely(12) ? choices.integer() : 0, 8, &choices), at: 116)
        put(Self.number(choices.rarely(16) ? choices.integer() : UInt64(content.count), 12, &choices), at: 124)
        put(Self.number(choices.rarely(8) ? choices.integer() : 0, 12, &choices), at: 136)
        block[156] = kind
        put(choices.one(of: Self.names).utf8.prefix(100), at: 157)
        put((choices.rarely(4) ? "ustar  \0" : "ustar\u{0}00").utf8, at: 257)
        if choices.rarely(12) { put(choices.bytes(upTo: 255), at: 257) }
        if choices.rarely(10) { put(choices.one(of: Self.names).utf8, at: 345) }
        for index in 148..<156 { block[index] = 0x20 }
        let sum = block.reduce(0) { $0 + Int($1) } + (choices.rarely(40) ? 1 : 0)
        put(String(sum, radix: 8).utf8, at: 148)
        bytes += block + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    /// Octal, in base 256, or something else.
    private static func number(_ value: UInt64, _ width: Int, _ choices: inout Choices) -> [UInt8] {
        if choices.rarely(20) { return choices.bytes(upTo: width) }
        let octal = String(value, radix: 8)
        if octal.utf8.count < width { return Array((String(repeating: "0", count: width - 1 - octal.utf8.count) + octal).utf8) }
        return [choices.rarely(2) ? 0xff : 0x80]
            + (1..<width).map { index in
                let shift = 8 * (width - 1 - index)
                return shift < 64 ? UInt8(truncatingIfNeeded: value >> UInt64(shift)) : 0
            }
    }

    private static func records(_ choices: inout Choices) -> [UInt8] {
        var out: [UInt8] = []
        for _ in 0...choices.below(4) {
            let key = choices.one(of: [
                "path", "linkpath", "size", "mtime", "uid", "gid", "SCHILY.xattr.user.a", "SCHILY.xattr.security.capability",
                "SCHILY.xattr.",
                "LIBARCHIVE.xattr.user.b", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.realsize", "GNU.sparse.name",
                "GNU.sparse.map",
                "GNU.sparse.numblocks", "GNU.sparse.offset", "GNU.sparse.numbytes", "SCHILY.filetype", "",
            ])
            let value: [UInt8] =
                choices.rarely(3)
                ? choices.bytes(upTo: 60)
                : Array(choices.one(of: names + ["1", "0", "65", "-1.5", "1.000000001", "9223372036854775808", "0,1,2,3", "1e9"]).utf8)
            let body = Array(" \(key)=".utf8) + value + [0x0a]
            var length = body.count + 1
            while String(length).utf8.count + body.count != length { length += 1 }
            out += Array((choices.rarely(16) ? "\(choices.integer())" : String(length)).utf8) + body
        }
        return out
    }
}
