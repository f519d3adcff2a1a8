import ComposefsLinuxSystem
import ComposefsOCI
import Testing

/// Which layers a check re-assembles, and which it takes by the record of the pull that hashed them.
struct LayerRecordTests {
    private let folder: Folder
    private let store: Store
    private let attribute: ByteString = "user.cfsoci.diff-id"

    init() async throws {
        folder = try Folder()
        store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
    }

    private var layers: [(diffID: ContentDigest, stream: ObjectID)] {
        get throws { try store.images.layers(of: store.images.open("image").image).map { ($0.diffID, $0.stream) } }
    }

    private func object(_ id: ObjectID) throws -> FileDescriptor {
        try FileDescriptor.open(folder.path + "/repository/objects/" + ByteString(id.objectPath.description), .readOnly)
    }

    private func link(_ diffID: ContentDigest) -> ByteString {
        folder.path + "/repository/streams/oci-layer-" + ByteString(diffID.description)
    }

    private func lead(_ diffID: ContentDigest, to stream: ObjectID) throws {
        try FileDescriptor.currentDirectory.unlink(at: link(diffID))
        try FileDescriptor.currentDirectory.symlink(target: "../objects/" + ByteString(stream.objectPath.description), at: link(diffID))
    }

    private func expect(
        reassembled: Int, byRecord: Int, _ options: ImageCheckOptions = ImageCheckOptions(),
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let report = try store.check(nil, options)
        #expect(report.isClean, "\(report.images.problems)", sourceLocation: sourceLocation)
        #expect(report.images.layersReassembled == reassembled, sourceLocation: sourceLocation)
        #expect(report.images.layersByRecord == byRecord, sourceLocation: sourceLocation)
    }

    @Test func recordsSaveWork() throws {
        #expect(try layers.count == 2)
        try expect(reassembled: 0, byRecord: 2)
        try expect(reassembled: 2, byRecord: 0, ImageCheckOptions(deep: true))
        try expect(reassembled: 0, byRecord: 0, ImageCheckOptions(metadataOnly: true))
    }

    /// As in repositories of other programs, and in copies of repositories.
    @Test func withoutARecord() throws {
        let first = try layers[0]
        try object(first.stream).removeExtendedAttribute(attribute)
        try expect(reassembled: 1, byRecord: 1)
        // A mark that is younger than the link was not set by the pull that made the link.
        try object(first.stream).setExtendedAttribute(attribute, ByteString(first.diffID.description))
        try expect(reassembled: 1, byRecord: 1)
    }

    /// The levels of the repository alone has read no object.
    @Test func nothingIsKnownToBeIntact() throws {
        let report = try store.images.check()
        #expect(report.isClean && report.layersReassembled == 2 && report.layersByRecord == 0)
    }

    @Test func swappedLinks() throws {
        let both = try layers
        try lead(both[0].diffID, to: both[1].stream)
        let problems = try store.check().images.problems
        #expect(problems.map(\.kind) == ["layer-stream-mismatch"] && problems[0].detail.hasPrefix(both[0].diffID.description))
        // Without an image that says which stream it is, the record does.
        try store.images.untag("image")
        let report = try store.check().images
        #expect(report.problems.map(\.kind) == ["layer-digest-mismatch"], "\(report.problems)")
        #expect(report.problems.map(\.detail) == ["\(both[0].diffID): the stream re-assembles to \(both[1].diffID)"])
        #expect(report.layersReassembled == 1 && report.layersByRecord == 1)
    }

    @Test func changedRecord() throws {
        let both = try layers
        try object(both[0].stream).setExtendedAttribute(attribute, ByteString(both[1].diffID.description))
        let report = try store.check().images
        #expect(report.problems.map(\.kind) == ["layer-mark-mismatch"] && report.layersReassembled == 1 && report.layersByRecord == 1)
    }

    /// A link that is made again does not make a later mark older than it for another digest.
    @Test func changedRecordAndLink() throws {
        let both = try layers
        try object(both[0].stream).setExtendedAttribute(attribute, ByteString(both[1].diffID.description))
        try lead(both[1].diffID, to: both[0].stream)
        let report = try store.check().images
        #expect(Set(report.problems.map(\.kind)) == ["layer-mark-mismatch", "layer-stream-mismatch"], "\(report.problems)")
    }

    /// A damaged object of a layer makes its record worthless.
    @Test func damagedObject() throws {
        let tree = try store.images.tree(of: try store.images.open("image").image)
        let inode = try #require(tree.lookup(path: "/usr/lib/table.txt"))
        guard case .external(let id, _)? = tree.content(of: inode) else { throw Failed("the file is no object") }
        let path = folder.path + "/repository/objects/" + ByteString(id.objectPath.description)
        var bytes = try readFile(path)
        bytes[100] ^= 1
        try FileDescriptor.open(path, [.writeOnly, .truncate]).writeAll(bytes)
        let report = try store.check()
        #expect(report.repository.problems.map(\.kind) == [.objectDigestMismatch])
        #expect(report.images.problems.map(\.kind) == ["layer-digest-mismatch"] && report.images.layersReassembled == 1)
        // Only a part of the objects is known to be intact.
        try FileDescriptor.open(path, [.writeOnly, .truncate]).writeAll(bytes.indices.map { $0 == 100 ? bytes[$0] ^ 1 : bytes[$0] })
        for index in 1...2 {
            let part = try store.check(nil, ImageCheckOptions(subset: CheckSubset(index, of: 2)))
            #expect(part.isClean && part.images.layersReassembled + part.images.layersByRecord <= 2)
        }
    }
}
