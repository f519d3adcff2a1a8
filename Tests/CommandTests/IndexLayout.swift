import ComposefsHashing
import ComposefsJSON

/// Writes an OCI layout with an index for several platforms, without the project's own code.
final class IndexLayout {
    /// A document or blob, as a descriptor names it.
    struct Entry {
        var mediaType: String
        var digest: ContentDigest
        var size: Int
        /// Further members of the descriptor, each preceded by a comma.
        var members = ""

        var json: String { #"{"mediaType":"\#(mediaType)","digest":"\#(digest)","size":\#(size)\#(members)}"# }
    }

    static let manifestType = "application/vnd.oci.image.manifest.v1+json"
    static let indexType = "application/vnd.oci.image.index.v1+json"
    static let layerType = "application/vnd.oci.image.layer.v1.tar"

    let path: String
    /// What index.json lists.
    private var listed: [String] = []

    init(_ path: String) throws {
        self.path = path
        guard try launch("mkdir", ["-p", path + "/blobs/sha256"]).status == 0 else { throw RunFailure(description: "mkdir \(path)") }
        try writeFile(path + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
    }

    func blobPath(_ digest: ContentDigest) -> String { "\(path)/blobs/\(digest.algorithm.rawValue)/\(digest.hex)" }

    func blob(_ bytes: [UInt8], _ type: String, _ members: String = "") throws -> Entry {
        let entry = Entry(mediaType: type, digest: .of(bytes), size: bytes.count, members: members)
        try writeFile(blobPath(entry.digest), bytes)
        return entry
    }

    func blob(_ text: String, _ type: String, _ members: String = "") throws -> Entry { try blob(Array(text.utf8), type, members) }

    /// An image of one uncompressed layer for each archive.
    ///
    /// - Parameter platform: OS and architecture of the entry.
    func image(_ layers: [[UInt8]], _ platform: (os: String, architecture: String)) throws -> Entry {
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        let config = try blob(
            #"{"architecture":"\#(platform.architecture)","os":"\#(platform.os)","config":{},"#
                + #""rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#, "application/vnd.oci.image.config.v1+json")
        return try manifest(
            config, try layers.map { try blob($0, Self.layerType) },
            entry: #","platform":{"os":"\#(platform.os)","architecture":"\#(platform.architecture)"}"#)
    }

    /// What buildkit adds for each image: a manifest of an unknown platform.
    func attestation(of image: Entry) throws -> Entry {
        let config = try blob(
            #"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
            "application/vnd.oci.image.config.v1+json")
        let statement = try blob(#"{"subject":"\#(image.digest)"}"#, "application/vnd.in-toto+json")
        return try manifest(
            config, [statement],
            entry: #","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"#
                + #""attestation-manifest","vnd.docker.reference.digest":"\#(image.digest)"}"#)
    }

    /// - Parameters:
    ///   - members: further members of the manifest.
    ///   - entry: further members of its descriptor.
    func manifest(
        _ config: Entry, _ layers: [Entry], type: String = IndexLayout.manifestType, members: String = "", entry: String = ""
    ) throws -> Entry {
        try blob(
            #"{"schemaVersion":2,"mediaType":"\#(type)","config":\#(config.json),"#
                + #""layers":[\#(layers.map(\.json).joined(separator: ","))]\#(members)}"#, type, entry)
    }

    /// A referrer of a document, with its artifact type.
    func artifact(of subject: Entry, _ content: String) throws -> Entry {
        let artifactType = #","artifactType":"application/vnd.example.note""#
        return try manifest(
            try blob("{}", "application/vnd.oci.empty.v1+json"), [try blob(content, "text/plain")],
            members:
                #"\#(artifactType),"subject":{"mediaType":"\#(subject.mediaType)","digest":"\#(subject.digest)","size":\#(subject.size)}"#,
            entry: artifactType)
    }

    /// The index is not written as bytes of another program: with spaces, so that a copy that encodes it anew has another digest.
    func index(_ entries: [Entry], type: String = IndexLayout.indexType, members: String = "") throws -> Entry {
        try blob(
            #"{ "schemaVersion": 2, "mediaType": "\#(type)", "manifests": [ \#(entries.map(\.json).joined(separator: ", ")) ]\#(members) }"#,
            type)
    }

    /// Writes index.json, with a name for the image.
    func list(_ entry: Entry, as name: String?) throws {
        var entry = entry
        if let name { entry.members = #","annotations":{"org.opencontainers.image.ref.name":"\#(name)"}"# }
        listed.append(entry.json)
        try writeFile(
            path + "/index.json", Array(#"{"schemaVersion":2,"manifests":[\#(listed.joined(separator: ","))]}"#.utf8))
    }

    /// Two platforms that share a layer, an attestation of the first, a manifest without a platform, an artifact, and an index in the index
    /// with a third platform. Returns the index, which is named `v1`.
    static func whole(_ path: String) throws -> (layout: IndexLayout, index: Entry, first: Entry) {
        let layout = try IndexLayout(path)
        let shared = tarArchive([TarMember(name: "shared", content: [UInt8](repeating: 7, count: 300_000))])
        func own(_ name: String) -> [UInt8] { tarArchive([TarMember(name: name, content: Array("only \(name)\n".utf8))]) }
        let first = try layout.image([shared, own("amd64")], ("linux", "amd64"))
        var unsaid = try layout.image([own("unsaid")], ("plan9", "mips"))
        unsaid.members = ""
        let note = try layout.manifest(
            try layout.blob("{}", "application/vnd.oci.empty.v1+json"), [try layout.blob("a note", "text/plain")],
            members: #","artifactType":"application/vnd.example.note""#)
        let inner = try layout.index([try layout.image([shared, own("riscv64")], ("linux", "riscv64")), first])
        let index = try layout.index(
            [
                first, try layout.image([shared, own("arm64")], ("linux", "arm64")), try layout.attestation(of: first), unsaid, note, inner,
            ], members: #", "annotations": { "org.example": "kept" }"#)
        try layout.list(index, as: "v1")
        return (layout, index, first)
    }
}

/// The content of every blob of a layout by its digest, whose names are checked.
func blobs(ofLayout path: String) throws -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    for name in fileList(path + "/blobs/sha256") {
        let bytes = try readFile(path + "/blobs/sha256/" + name)
        guard ContentDigest.of(bytes).hex == name else { throw RunFailure(description: "\(path): \(name) has other content") }
        found[name] = bytes
    }
    return found
}

/// The digests that a layout's index.json lists, in its order.
func listedDigests(ofLayout path: String) throws -> [String?] {
    try (JSONValue.parse(readFile(path + "/index.json"))["manifests"]?.array ?? []).map { $0["digest"]?.string }
}
