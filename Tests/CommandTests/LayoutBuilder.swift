import ComposefsHashing

/// Writes an OCI layout of uncompressed or stored-gzip layers, without the project's own code.
struct LayoutBuilder {
    /// Uncompressed archives, from bottom to top.
    var layers: [[UInt8]] = []
    /// The program that compresses the layers (`gzip`), or nil for none.
    var compressor: String?
    var architecture = "amd64"

    /// Returns the manifest's digest. The layout has one image, named `latest`.
    @discardableResult
    func write(to folder: String) throws -> ContentDigest {
        _ = try launch("mkdir", ["-p", folder + "/blobs/sha256"])
        func blob(_ bytes: [UInt8]) throws -> ContentDigest {
            let digest = ContentDigest.of(bytes)
            try writeFile(folder + "/blobs/sha256/" + digest.hex, bytes)
            return digest
        }
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        // gzip would store the time, and the digests would be others each time.
        let blobs = try layers.map { layer in
            try compressor.map { try launch($0, ["-c", "-1"] + ($0 == "gzip" ? ["-n"] : []), input: layer).output } ?? layer
        }
        let layerDigests = try blobs.map { try blob($0) }
        let layerType = "application/vnd.oci.image.layer.v1.tar" + (compressor.map { "+" + $0 } ?? "")
        let config = Array(
            #"{"architecture":"\#(architecture)","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
        let configDigest = try blob(config)
        let descriptors = zip(layerDigests, blobs).map {
            #"{"mediaType":"\#(layerType)","digest":"\#($0)","size":\#($1.count)}"#
        }.joined(separator: ",")
        let manifest = Array(
            (#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"#
                + #""application/vnd.oci.image.config.v1+json","digest":"\#(configDigest)","size":\#(config.count)},"layers":[\#(descriptors)]}"#)
                .utf8)
        let manifestDigest = try blob(manifest)
        try writeFile(folder + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        try writeFile(
            folder + "/index.json",
            Array(
                (#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"#
                    + #""\#(manifestDigest)","size":\#(manifest.count),"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#)
                    .utf8))
        return manifestDigest
    }

    /// Two small layers with every kind of content: inline, external, empty, linked, removed.
    static func small() -> LayoutBuilder {
        let text = Array("hello from test layer\n".utf8)
        let big = [UInt8]((0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })
        return LayoutBuilder(layers: [
            tarArchive([
                TarMember(name: "usr/", mode: 0o755, type: "5"),
                TarMember(name: "usr/small", content: text),
                TarMember(name: "usr/big", mode: 0o755, content: big),
                TarMember(name: "usr/gone", content: Array(big.prefix(100))),
                TarMember(name: "usr/empty"),
                TarMember(name: "usr/link", type: "2", link: "big"),
                TarMember(name: "usr/hard", type: "1", link: "usr/big"),
            ]),
            tarArchive([
                TarMember(name: "etc/", mode: 0o755, type: "5"),
                TarMember(name: "etc/config", uid: 3, gid: 4, content: Array(big.suffix(5000))),
                TarMember(name: "usr/.wh.gone"),
            ]),
        ])
    }

    /// Layers of many files, so that a pull takes long enough to be interrupted. Contents are pseudo-random and reproducible.
    static func large(layers: Int, filesPerLayer: Int) -> LayoutBuilder {
        var state: UInt64 = 88_172_645_463_325_252
        func random() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
        var builder = LayoutBuilder()
        for layer in 0..<layers {
            var members = [TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/l\(layer)/", mode: 0o755, type: "5")]
            for file in 0..<filesPerLayer {
                let count = Int(random() % 12_000)
                let seed = random()
                let content = [UInt8](unsafeUninitializedCapacity: count) { out, used in
                    for index in 0..<count { out[index] = UInt8(truncatingIfNeeded: (seed &* UInt64(index | 1)) >> 24) }
                    used = count
                }
                members.append(TarMember(name: "usr/l\(layer)/f\(file)", content: content))
            }
            builder.layers.append(tarArchive(members))
        }
        return builder
    }
}

/// Writes an OCI layout with one artifact that belongs to a subject, without the project's own code. Returns its manifest's digest.
@discardableResult
func writeArtifact(_ folder: String, subject: ContentDigest) throws -> ContentDigest {
    _ = try launch("mkdir", ["-p", folder + "/blobs/sha256"])
    func blob(_ text: String) throws -> String {
        let bytes = Array(text.utf8)
        try writeFile(folder + "/blobs/sha256/" + ContentDigest.of(bytes).hex, bytes)
        return #""digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)"#
    }
    let type = "application/vnd.oci.image.manifest.v1+json"
    let manifest =
        #"{"schemaVersion":2,"mediaType":"\#(type)","artifactType":"application/spdx+json","config":{"mediaType":"application/vnd.oci.empty.v1+json",\#(try blob("{}"))},"layers":[{"mediaType":"text/spdx",\#(try blob("what is in it"))}],"subject":{"mediaType":"\#(type)","digest":"\#(subject)","size":1000}}"#
    let descriptor = try blob(manifest)
    try writeFile(folder + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
    try writeFile(folder + "/index.json", Array(#"{"schemaVersion":2,"manifests":[{"mediaType":"\#(type)",\#(descriptor)}]}"#.utf8))
    return ContentDigest.of(Array(manifest.utf8))
}
