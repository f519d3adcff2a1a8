import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports
import Testing

private func platform(_ text: String) throws -> Platform { try Platform(parsing: text) }

@Suite struct ModelsPlatformTests {
    @Test(arguments: [
        ("linux/amd64", "linux/amd64"), ("amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"), ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"), ("linux/aarch64", "linux/arm64"), ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"), ("linux/arm", "linux/arm/v7"), ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"), ("linux/arm/6", "linux/arm/v6"), ("linux/i686", "linux/386"), ("macos/arm64", "darwin/arm64"),
        ("Linux/AMD64", "linux/amd64"), ("riscv64", "linux/riscv64"), ("linux/ppc64le", "linux/ppc64le"),
    ])
    func normalised(_ text: String, _ expected: String) throws { #expect(try platform(text).description == expected) }

    /// An operating system alone is combined with this machine's architecture.
    @Test func systemsAlone() throws {
        let host = Platform.host
        #expect(try platform("linux") == host)
        let windows = try platform("Windows")
        #expect((windows.os, windows.architecture, windows.variant) == ("windows", host.architecture, host.variant))
    }

    @Test(arguments: ["", "/", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/amd64/", "linux/ä", "linux\u{0}/amd64"])
    func refused(_ text: String) { #expect(throws: OCIError.self) { try Platform(parsing: text) } }

    @Test(arguments: [
        ("linux/amd64", "linux/amd64", 0), ("linux/amd64", "linux/amd64/v1", 0), ("linux/amd64", "linux/amd64/v2", nil),
        ("linux/amd64/v3", "linux/amd64/v3", 0), ("linux/amd64/v3", "linux/amd64/v2", 1), ("linux/amd64/v3", "linux/amd64", 2),
        ("linux/amd64/v3", "linux/amd64/v4", nil), ("linux/arm/v7", "linux/arm", 0), ("linux/arm/v7", "linux/arm/v6", 1),
        ("linux/arm/v7", "linux/arm/v5", 2), ("linux/arm/v6", "linux/arm/v7", nil), ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64", "linux/arm64/v9", nil), ("linux/arm64/v9", "linux/arm64", 1), ("linux/arm64", "linux/arm/v7", nil),
        ("linux/amd64", "windows/amd64", nil), ("linux/amd64", "linux/386", nil), ("linux/riscv64", "linux/riscv64", 0),
        ("linux/mips64le/r2", "linux/mips64le/r1", nil),
    ])
    func ranks(_ wanted: String, _ offered: String, _ rank: Int?) throws {
        #expect(try platform(wanted).rank(of: platform(offered)) == rank)
    }

    @Test func host() {
        #expect(Platform.host.os == "linux")
        #expect(Platform.host.rank(of: .host) == 0)
        #expect(!Platform.host.architecture.isEmpty)
        #expect(!["x86_64", "aarch64", "armv7l"].contains(Platform.host.architecture))
    }
}

/// Documents by digest; one of them is the root.
private final class MemorySource: ImageSource {
    let documents: [ContentDigest: [UInt8]]
    let root: SourceManifest
    let canonicalName = "memory"

    init(_ documents: [[UInt8]], root: SourceManifest) {
        self.documents = Dictionary(documents.map { (ContentDigest.of($0), $0) }) { first, _ in first }
        self.root = root
    }

    func rootManifest() -> SourceManifest { root }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        guard let bytes = documents[descriptor.digest] else { throw OCIError.notFound(source: "memory", descriptor.missing) }
        return bytes
    }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { DataBlobReader(try manifest(descriptor)) }
}

/// Gives the same answer to every request.
private final class StubbornSource: ImageSource {
    let root: SourceManifest
    let answer: [UInt8]
    let canonicalName = "stubborn"

    init(_ root: SourceManifest, _ answer: [UInt8] = []) {
        self.root = root
        self.answer = answer
    }

    func rootManifest() -> SourceManifest { root }
    func manifest(_ descriptor: Descriptor) -> [UInt8] { answer }
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { throw OCIError.notFound(source: "stubborn", descriptor.missing) }
}

@Suite struct ModelsResolverTests {
    private let amd64 = Platform(os: "linux", architecture: "amd64")

    /// A config without a platform.
    private let config = Array(#"{"rootfs":{"type":"layers"}}"#.utf8)

    /// A manifest without layers that differs by its annotation.
    private func manifest(_ name: String) -> [UInt8] {
        Array(
            """
            {"schemaVersion":2,"mediaType":"\(MediaType.ociManifest)","config":{"mediaType":"\(MediaType.ociConfig)",\
            "digest":"\(ContentDigest.of(config))","size":\(config.count)},"layers":[],"annotations":{"name":"\(name)"}}
            """.utf8)
    }

    private func entry(_ document: [UInt8], _ platform: String? = nil, type: String = MediaType.ociManifest, more: String = "") -> String {
        let parts = platform?.split(separator: "/").map(String.init) ?? []
        let variant = parts.count > 2 ? ",\"variant\":\"\(parts[2])\"" : ""
        let platformText = parts.isEmpty ? "" : ",\"platform\":{\"os\":\"\(parts[0])\",\"architecture\":\"\(parts[1])\"\(variant)}"
        return "{\"mediaType\":\"\(type)\",\"digest\":\"\(ContentDigest.of(document))\",\"size\":\(document.count)\(platformText)\(more)}"
    }

    private func index(_ entries: [String]) -> [UInt8] {
        Array("{\"schemaVersion\":2,\"mediaType\":\"\(MediaType.ociIndex)\",\"manifests\":[\(entries.joined(separator: ","))]}".utf8)
    }

    private func resolve(_ documents: [[UInt8]], root: [UInt8], _ text: String = "linux/amd64") throws -> String? {
        let source = MemorySource(documents + [config], root: SourceManifest(bytes: root))
        return try resolveManifest(source, platform: try Platform(parsing: text)).manifest.annotations["name"]
    }

    @Test func theBestPlatformIsTaken() throws {
        let all = ["a", "b", "c", "d", "e"].map(manifest)
        let attestation = ",\"annotations\":{\"vnd.docker.reference.type\":\"attestation-manifest\"}"
        let root = index([
            entry(all[4], "linux/amd64", more: attestation), entry(all[4], "unknown/unknown"), entry(all[0], "linux/arm/v5"),
            entry(all[1], "linux/arm/v6"), entry(all[2], "linux/amd64"), entry(all[3], "linux/amd64/v2"),
        ])
        #expect(try resolve(all, root: root, "linux/amd64") == "c")
        #expect(try resolve(all, root: root, "linux/amd64/v2") == "d")
        #expect(try resolve(all, root: root, "linux/amd64/v4") == "d")
        #expect(try resolve(all, root: root, "linux/arm/v7") == "b")
        #expect(try resolve(all, root: root, "linux/arm/v5") == "a")
        let error = #expect(throws: OCIError.self) { try resolve(all, root: root, "linux/s390x") }
        let available = "linux/arm/v5, linux/arm/v6, linux/amd64, linux/amd64/v2"
        #expect(error?.description == "the index lists no image for linux/s390x, only for \(available)")
    }

    @Test func indexesInsideIndexes() throws {
        let (wanted, other) = (manifest("wanted"), manifest("other"))
        let inner = index([entry(other, "linux/arm64"), entry(wanted, "linux/amd64")])
        let empty = index([])
        let middle = index([entry(empty, type: MediaType.ociIndex), entry(inner, type: MediaType.ociIndex)])
        let root = index([entry(middle, type: MediaType.ociIndex)])
        #expect(try resolve([wanted, other, inner, middle, empty], root: root) == "wanted")
        // An entry with the right platform is preferred to one without a platform.
        let mixed = index([entry(inner, type: MediaType.ociIndex), entry(other, "linux/amd64")])
        #expect(try resolve([wanted, other, inner], root: mixed) == "other")
        #expect(try resolve([wanted, other], root: index([entry(wanted), entry(other)])) == "wanted")
        #expect(throws: OCIError.noMatchingPlatform(wanted: amd64, available: [])) { try resolve([], root: empty) }
    }

    @Test func depthAndNumberAreLimited() throws {
        var document = manifest("deep")
        var type = MediaType.ociManifest
        var all = [document]
        for _ in 0..<ImageLimits.indexDepth {
            document = index([entry(document, type: type)])
            type = MediaType.ociIndex
            all.append(document)
        }
        #expect(try resolve(all, root: document) == "deep")
        let tooDeep = index([entry(document, type: type)])
        let depth = #expect(throws: LimitExceeded.self) { try resolve(all, root: tooDeep) }
        #expect(depth?.limit == .indexDepth && depth?.allowed == 8)
        let indexes = (0...ImageLimits.indexCount).map { index([entry(manifest("\($0)"), "linux/s390x")]) }
        let wide = index(indexes.map { entry($0, type: MediaType.ociIndex) })
        let error = #expect(throws: OCIError.self) { try resolve(indexes, root: wide) }
        #expect(error?.description == "index: lists more than 64 documents, the limit")
    }

    @Test func whatIsFetchedIsCompared() throws {
        let (wanted, other) = (manifest("a"), manifest("b"))
        let root = SourceManifest(bytes: index([entry(wanted, "linux/amd64")]))
        let expected = Descriptor(mediaType: MediaType.ociManifest, digest: .of(wanted), size: UInt64(wanted.count))
        for answer in [other, wanted + [0x20], []] {
            let error = #expect(throws: OCIError.self) { try resolveManifest(StubbornSource(root, answer), platform: amd64) }
            #expect(error?.description.contains("\(expected.digest)") == true)
            let source = StubbornSource(SourceManifest(bytes: answer, expected: expected))
            #expect(throws: OCIError.self) { try resolveManifest(source, platform: amd64) }
        }
        let found = try resolveManifest(StubbornSource(SourceManifest(bytes: wanted, expected: expected)), platform: amd64)
        #expect(found.digest == expected.digest)
        #expect(found.descriptor == expected)
        var promised = expected
        promised.mediaType = MediaType.ociIndex
        #expect(throws: OCIError.self) {
            try resolveManifest(StubbornSource(SourceManifest(bytes: wanted, expected: promised)), platform: amd64)
        }
    }
}
