import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// A registry in memory: images for platforms, an index of some, and the requests.
private final class Hub: ImageSource {
    struct Unreachable: Error, CustomStringConvertible { let description = "the hub is down" }

    private struct State {
        var blobs: [ContentDigest: [UInt8]] = [:]
        var root: [UInt8] = []
        var asked = 0
        var isDown = false
    }

    let canonicalName: String
    let pinnedDigest: ContentDigest?
    private let state = Mutex(State())

    init(name: String = "hub.example/app:1", pinned: ContentDigest? = nil) {
        canonicalName = name
        pinnedDigest = pinned
    }

    var isRemote: Bool { true }
    /// The number of requests.
    var asked: Int { state.withLock { $0.asked } }
    var isDown: Bool {
        get { state.withLock { $0.isDown } }
        set { state.withLock { $0.isDown = newValue } }
    }
    let cancellation = Cancellation()

    /// Adds an image, to which the name refers from now on.
    @discardableResult
    func put(_ archive: LayerArchive, os: String = "linux", architecture: String = "amd64", variant: String? = nil) -> Descriptor {
        let extra = variant.map { #","variant":"\#($0)""# } ?? ""
        let config = Array(
            #"{"architecture":"\#(architecture)","os":"\#(os)"\#(extra),"rootfs":{"type":"layers","diff_ids":["\#(archive.diffID)"]}}"#.utf8
        )
        func descriptor(_ bytes: [UInt8], _ type: String) -> String {
            #"{"mediaType":"\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)}"#
        }
        let manifest = Array(
            (#"{"schemaVersion":2,"mediaType":"\#(MediaType.ociManifest)","config":\#(descriptor(config, MediaType.ociConfig)),"#
                + #""layers":[\#(descriptor(archive.bytes, "application/vnd.oci.image.layer.v1.tar"))]}"#).utf8)
        state.withLock { state in
            for bytes in [config, manifest, archive.bytes] { state.blobs[.of(bytes)] = bytes }
            state.root = manifest
        }
        return Descriptor(
            mediaType: MediaType.ociManifest, digest: .of(manifest), size: UInt64(manifest.count),
            platform: Platform(os: os, architecture: architecture, variant: variant))
    }

    /// Makes the name refer to an index of these images. Entries may have no platform.
    @discardableResult
    func putIndex(_ entries: [Descriptor], more: [String] = []) -> Descriptor {
        let list =
            entries.map { entry in
                let platform = entry.platform.map { platform in
                    let variant = platform.variant.map { #","variant":"\#($0)""# } ?? ""
                    let version = platform.osVersion.map { #","os.version":"\#($0)""# } ?? ""
                    return #","platform":{"os":"\#(platform.os)","architecture":"\#(platform.architecture)"\#(variant)\#(version)}"#
                }
                return #"{"mediaType":"\#(entry.mediaType)","digest":"\#(entry.digest)","size":\#(entry.size)\#(platform ?? "")}"#
            } + more
        let index = Array(#"{"schemaVersion":2,"mediaType":"\#(MediaType.ociIndex)","manifests":[\#(list.joined(separator: ","))]}"#.utf8)
        state.withLock { state in
            state.blobs[.of(index)] = index
            state.root = index
        }
        return Descriptor(mediaType: MediaType.ociIndex, digest: .of(index), size: UInt64(index.count))
    }

    private func answer<Value>(_ body: (inout State) throws -> Value) throws -> Value {
        try state.withLock { state in
            state.asked += 1
            if state.isDown { throw Unreachable() }
            return try body(&state)
        }
    }

    func rootManifest() throws -> SourceManifest { try answer { SourceManifest(bytes: $0.root) } }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        try answer { state in
            guard let bytes = state.blobs[descriptor.digest] else {
                throw OCIError.notFound(source: ByteString(canonicalName), descriptor.missing)
            }
            return bytes
        }
    }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { ArrayBlob(try manifest(descriptor)) }

}

private func archive(_ text: String) -> LayerArchive { LayerArchive().adding(text, Array(String(repeating: text, count: 100).utf8)) }

@Suite struct PolicyTests {
    private let scratch: StoreScratch
    private let store: ImageStore
    private let hub = Hub()

    init() throws {
        scratch = try StoreScratch()
        store = ImageStore(try scratch.create())
    }

    private func pull(
        _ policy: PullPolicy = .missing, platform: String = "linux/amd64", name: ByteString? = nil, from hub: Hub? = nil
    ) throws -> PullResult {
        var options = PullOptions(platform: try Platform(parsing: platform), name: name)
        options.policy = policy
        options.cancellation = (hub ?? self.hub).cancellation
        return try pullImage(from: hub ?? self.hub, into: store.repository, options)
    }

    @Test func missingAsksOnce() throws {
        let image = hub.put(archive("a"))
        let first = try pull()
        #expect(first.outcome == .pulled && first.manifestDigest == image.digest && first.previousManifestDigest == nil)
        let asked = hub.asked
        // The name refers to another image by now, but the registry is not asked.
        hub.put(archive("b"))
        hub.isDown = true
        let second = try pull()
        #expect(hub.asked == asked && second.outcome == .present && second.manifestDigest == image.digest)
        #expect(second.imageIDs == first.imageIDs && second.imageID == first.imageID && second.name == first.name)
        #expect(second.manifestStream == first.manifestStream && second.configStream == first.configStream)
        #expect(second.layers == first.layers && second.layers.map(\.diffID) == [archive("a").diffID])
        #expect(second.newLayers == 0 && second.presentLayers == 1 && second.config == first.config)
        // With another name, the stored image gets that name.
        let named = try pull(name: "mine")
        #expect(hub.asked == asked && named.name == "mine")
        #expect(try store.tags().map(\.name) == ["hub.example/app:1", "mine"])
        // A custom name does not count as the reference.
        let other = Hub(name: "hub.example/other:1")
        other.put(archive("c"))
        #expect(try pull(name: "mine", from: other).outcome == .pulled)
        #expect(try store.faults() == [])
    }

    @Test func anotherPlatformIsMissing() throws {
        let amd = hub.put(archive("amd"))
        let arm = hub.put(archive("arm"), architecture: "arm64")
        hub.putIndex([amd, arm])
        #expect(try pull().manifestDigest == amd.digest)
        let moved = try pull(platform: "linux/arm64/v8")
        #expect(moved.outcome == .pulled && moved.manifestDigest == arm.digest && moved.previousManifestDigest == amd.digest)
        #expect(try pull(platform: "linux/arm64").outcome == .present)
        // An older variant would run, but a better one may be available.
        let asked = hub.asked
        #expect(throws: OCIError.self) { try pull(platform: "linux/arm/v7") }
        #expect(hub.asked > asked)
    }

    @Test func variants() throws {
        let v6 = hub.put(archive("v6"), architecture: "arm", variant: "v6")
        let v7 = hub.put(archive("v7"), architecture: "arm", variant: "v7")
        let v1 = hub.put(archive("v1"))
        let v3 = hub.put(archive("v3"), variant: "v3")
        hub.putIndex([v6, v7, v1, v3])
        for (platform, image) in [
            ("arm/v7", v7), ("arm", v7), ("arm/v8", v7), ("arm/v6", v6), ("amd64", v1), ("amd64/v2", v1), ("amd64/v4", v3),
        ] {
            #expect(try pull(.always, platform: "linux/" + platform).manifestDigest == image.digest, "\(platform)")
        }
        hub.putIndex([v6, v3])
        #expect(try pull(.always, platform: "linux/arm/v7").manifestDigest == v6.digest)
        let refused = #expect(throws: OCIError.self) { try pull(.always, platform: "linux/arm/v5") }
        #expect(
            refused?.description
                == "the index lists no image for linux/arm/v5, only for linux/arm/v6, linux/amd64/v3")
        // v1 does not run images for v3. The stored image for v6 runs on v7, but does not satisfy `missing`.
        #expect(throws: OCIError.self) { try pull(.always) }
        #expect(try pull(.never, platform: "linux/arm/v7").manifestDigest == v6.digest)
    }

    @Test func movedTag() throws {
        let old = hub.put(archive("a"))
        _ = try pull()
        let new = hub.put(archive("b"))
        let events = Mutex<[PullEvent.Phase]>([])
        var options = PullOptions(
            platform: try Platform(parsing: "linux/amd64"), observer: { event in events.withLock { $0.append(event.phase) } })
        options.policy = .newer
        let result = try pullImage(from: hub, into: store.repository, options)
        #expect(result.outcome == .pulled && result.manifestDigest == new.digest && result.previousManifestDigest == old.digest)
        #expect(events.withLock { $0.suffix(2) } == [.tagMoved(from: old.digest, to: new.digest), .done])
        #expect(try store.tags().map(\.manifestDigest) == [new.digest])
    }

    @Test func newer() throws {
        let image = hub.put(archive("a"))
        hub.isDown = true
        #expect(throws: Hub.Unreachable.self) { try pull(.newer) }
        hub.isDown = false
        #expect(try pull(.newer).outcome == .pulled)
        let asked = hub.asked
        #expect(try pull(.newer).outcome == .current)
        #expect(hub.asked == asked + 1)
        hub.isDown = true
        let offline = try pull(.newer)
        #expect(offline.outcome == .unreachable(reason: "the hub is down") && offline.manifestDigest == image.digest)
        #expect(throws: Hub.Unreachable.self) { try pull(.always) }
        #expect(throws: Hub.Unreachable.self) { try pull(.newer, platform: "linux/arm64") }
        // A cancelled pull returns no image.
        hub.cancellation.cancel()
        #expect(throws: CancellationError.self) { try pull(.newer) }
    }

    @Test func always() throws {
        let image = hub.put(archive("a"))
        let first = try pull(.always)
        let asked = hub.asked
        let second = try pull(.always)
        // Only the manifest: config and layer are stored.
        #expect(hub.asked == asked + 1 && second.outcome == .pulled && second.manifestDigest == image.digest)
        #expect(second.newLayers == 0 && second.presentLayers == 1 && second.imageID == first.imageID)
        #expect(second.previousManifestDigest == nil)
    }

    @Test func never() throws {
        hub.put(archive("a"))
        let absent = #expect(throws: PullError.self) { try pull(.never) }
        #expect(absent?.description == "hub.example/app:1 is not in the repository, and the policy is never to pull")
        _ = try pull()
        let asked = hub.asked
        #expect(try pull(.never).outcome == .present)
        let other = #expect(throws: PullError.self) { try pull(.never, platform: "linux/s390x") }
        #expect(
            other?.description
                == "hub.example/app:1 is not in the repository for linux/s390x, only for linux/amd64, and the policy is never to pull")
        #expect(hub.asked == asked)
    }

    /// By digest, a stored image is used with any tag and platform.
    @Test func pinned() throws {
        let image = hub.put(archive("a"), architecture: "arm64")
        _ = try pull()
        let pinned = Hub(name: "hub.example/app@\(image.digest)", pinned: image.digest)
        let result = try pull(from: pinned)
        #expect(result.outcome == .present && pinned.asked == 0)
        #expect(try store.tags().map(\.name) == ["hub.example/app:1", ByteString(pinned.canonicalName)])
    }

    /// An incomplete image counts as missing.
    @Test func damagedIsMissing() throws {
        hub.put(archive("a"))
        let first = try pull()
        let id = try #require(first.imageID).hex
        try scratch.directory().unlink(at: ByteString("objects/\(id.prefix(2))/\(id.dropFirst(2))"))
        #expect(try pull().outcome == .pulled)
        #expect(try pull().outcome == .present)
        #expect(try store.faults() == [])
    }

    @Test func localSourcesAreAlwaysRead() throws {
        let source = ArraySource([ArraySource.Layer(archive("a"))])
        for policy in PullPolicy.allCases {
            var options = PullOptions()
            options.policy = policy
            #expect(try pullImage(from: source, into: store.repository, options).outcome == .pulled)
        }
    }

    // MARK: The end of downloads

    private final class Log: Sendable {
        let lines = Mutex<[String]>([])
        func add(_ line: String) { lines.withLock { $0.append(line) } }
    }

    /// A program gives up the network when it is called: once, after the last layer, and before the last merge. Nothing is requested after it.
    @Test(arguments: [false, true], [false, true]) func endOfDownloads(ofAllPlatforms: Bool, withReferrers: Bool) throws {
        hub.putIndex([hub.put(archive("arm"), architecture: "arm64"), hub.put(archive("a"))])
        let log = Log()
        var options = PullOptions(platform: try Platform(parsing: "linux/amd64"))
        options.storesReferrers = withReferrers
        options.observer = { event in
            switch event.phase {
            case .stored: log.add("stored")
            case .merging: log.add("merging")
            default: break
            }
        }
        options.downloadsEnded = { [hub] in
            log.add("ended")
            hub.isDown = true
        }
        if ofAllPlatforms {
            #expect(try pullAllPlatforms(from: hub, into: store.repository, options).count == 2)
        } else {
            #expect(try pullImage(from: hub, into: store.repository, options).outcome == .pulled)
        }
        let image = withReferrers ? ["stored", "merging", "ended"] : ["stored", "ended", "merging"]
        #expect(log.lines.withLock { $0 } == (ofAllPlatforms ? ["stored", "merging"] : []) + image)
        #expect(try store.faults() == [])
    }

    @Test func errorAtTheEndOfDownloads() throws {
        hub.put(archive("a"))
        var options = PullOptions()
        options.downloadsEnded = { throw Hub.Unreachable() }
        #expect(throws: Hub.Unreachable.self) { try pullImage(from: hub, into: store.repository, options) }
        #expect(try store.tags().isEmpty)
        options.downloadsEnded = nil
        #expect(try pullImage(from: hub, into: store.repository, options).presentLayers == 1)
    }

    // MARK: All platforms

    private func pullAll(_ platform: String = "linux/amd64", name: ByteString? = nil) throws -> [PullResult] {
        try pullAllPlatforms(from: hub, into: store.repository, PullOptions(platform: Platform(parsing: platform), name: name))
    }

    @Test func allPlatforms() throws {
        let arm = hub.put(archive("arm"), architecture: "arm", variant: "v6")
        let amd = hub.put(archive("amd"))
        let unnamed = hub.put(archive("riscv"), architecture: "riscv64")
        var windows = hub.put(archive("win"), os: "windows")
        windows.platform?.osVersion = "10.0.20348.2527"
        var silent = unnamed
        silent.platform = nil
        let attestation =
            #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(ContentDigest.of([1]))","size":1,"#
            + #""platform":{"os":"unknown","architecture":"unknown"}}"#
        let nested = hub.putIndex([silent, amd])
        hub.putIndex([arm, amd, windows, nested], more: [attestation])
        let results = try pullAll()
        #expect(results.map(\.manifestDigest) == [amd, arm, windows, unnamed].map(\.digest))
        #expect(
            results.map(\.name) == [
                "hub.example/app:1", "hub.example/app:1-linux-arm-v6", "hub.example/app:1-windows-amd64-10.0.20348.2527",
                "hub.example/app:1-linux-riscv64",
            ])
        #expect(results.map(\.otherName) == ["hub.example/app:1-linux-amd64", nil, nil, nil])
        // The hub does not have the attestation, and the index is stored without it.
        let index = try #require(results.first?.index)
        #expect(index.name == "hub.example/app:1" && index.leftOut.map(\.digest) == [ContentDigest.of([1])])
        #expect(Set(index.manifests) == Set([amd, arm, windows, unnamed].map(\.digest)))
        #expect(try store.openIndex("hub.example/app:1").index.digest == index.digest)
        #expect(
            try store.tags().map(\.name.description) == [
                "hub.example/app:1", "hub.example/app:1-linux-amd64", "hub.example/app:1-linux-arm-v6", "hub.example/app:1-linux-riscv64",
                "hub.example/app:1-windows-amd64-10.0.20348.2527",
            ])
        #expect(try store.repository.collectGarbage().objectsRemoved == 0)
        #expect(try store.faults() == [])
        // The plain name is for this platform and is not requested again.
        let asked = hub.asked
        #expect(try pull().outcome == .present)
        #expect(hub.asked == asked)
        // Nothing is fetched twice.
        let again = try pullAll("linux/arm64", name: "x")
        #expect(again.map(\.newLayers) == [0, 0, 0, 0])
        #expect(again.map(\.name) == ["x-linux-arm-v6", "x-linux-amd64", "x-windows-amd64-10.0.20348.2527", "x-linux-riscv64"])
    }

    @Test func allPlatformsOfOne() throws {
        hub.put(archive("a"), architecture: "s390x")
        #expect(try pullAll().map(\.name) == ["hub.example/app:1"])
        hub.putIndex([])
        #expect(throws: OCIError.self) { try pullAll() }
        // Text from a platform does not become a path or a name that is too long.
        var odd = hub.put(archive("b"))
        odd.platform = Platform(os: "../..", architecture: "a/b c")
        hub.putIndex([odd])
        #expect(try pullAll().map(\.name) == ["hub.example/app:1-.._..-a_b_c"])
        odd.platform = Platform(os: String(repeating: "o", count: 300), architecture: "a")
        hub.putIndex([odd])
        #expect(throws: ImageStoreError.self) { try pullAll() }
    }
}
