import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@Suite struct ImageTests {
    /// A tree of some files that are objects of the repository.
    private func tree(_ objects: [StoredObject], size: (StoredObject) -> UInt64 = \.size) throws -> FileTree {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let directory = try tree.addDirectory("dir", in: FileTree.root, Metadata(permissions: 0o755))
        for (number, object) in objects.enumerated() {
            try tree.addLeaf(
                ByteString("file\(number)"), in: number == 0 ? FileTree.root : directory, Metadata(permissions: 0o644),
                .external(object.id, size: size(object)))
        }
        return tree
    }

    /// Golden: the image of an empty root.
    @Test func goldenImage() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let empty = FileTree(root: Metadata(permissions: 0o755))
        let image = try repository.storeImage(try writeErofs(empty, version: .v2))
        #expect(image.id.hex == "086b702a519b57d6ef5aea6f8b3f2be24355cd1fb835cd80fb4e3d388b24d5a5")
        #expect(try repository.imageObjects(image.id) == [])
    }

    @Test(arguments: ErofsVersion.allCases)
    func imagesKeepTheirObjects(_ version: ErofsVersion) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let objects = try (0..<4).map { try repository.store(content(100 + $0)) }
        let image = try repository.storeImage(try writeErofs(tree(Array(objects[..<3])), version: version))
        let other = try repository.storeImage(try writeErofs(tree([objects[3]]), version: version))
        var publication = Repository.Publication()
        publication.imageReference("os/stable", image.id)
        publication.image(other.id)
        try repository.publish(publication)
        #expect(try repository.imageObjects(image.id) == objects[..<3].map(\.id).sorted())
        let checked = try repository.check()
        #expect(checked.imagesChecked == 2 && checked.imagesCorrupted == 0)
        #expect(try repository.check().problems == [])

        let report = try repository.collectGarbage()
        #expect(report.imagesRemoved == 1 && report.objectsRemoved == 2 && report.streamsRemoved == 0)
        #expect(try repository.imageIDs() == [image.id])
        #expect(try repository.collectGarbage(extraRoots: [ByteString(image.id.hex)]) == GarbageReport())
        try repository.removeImageReference("os/stable")
        #expect(try repository.collectGarbage(dryRun: true, extraRoots: [ByteString(image.id.hex)]) == GarbageReport())
        #expect(try repository.collectGarbage().objectsRemoved == 4)
        #expect(try scratch.listing().filter { $0.value != "/" }.keys.sorted() == ["meta.json"])
    }

    @Test func unreadableImageStopsCollection() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let image = try repository.storeImage(content(5000))
        var publication = Repository.Publication()
        publication.imageReference("x", image.id)
        try repository.publish(publication)
        guard case .unreadableRoot(let path, _) = failure({ _ = try repository.collectGarbage() }) else {
            Issue.record("collected")
            return
        }
        #expect(path == "images/" + ByteString(image.id.hex))
        #expect(try repository.check().problems.map(\.kind) == [.imageInvalid])
    }

    @Test func faults() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let objects = try (0..<2).map { try repository.store(content(100 + $0)) }
        let sound = try repository.storeImage(try writeErofs(tree(objects), version: .v1))
        let wrong = try repository.storeImage(try writeErofs(tree([objects[0]], size: { $0.size + 1 }), version: .v1))
        var publication = Repository.Publication()
        publication.image(sound.id)
        publication.image(wrong.id)
        try repository.publish(publication)
        let root = try scratch.directory()
        func found(_ kind: FsckProblem.Kind) throws -> [String] {
            try repository.check().problems.filter { $0.kind == kind }.map(\.description)
        }
        #expect(
            try repository.check().problems.map(\.description) == [
                "fsck: image-invalid: images/\(wrong.id): /file0 has 101 bytes in the image, its object 100"
            ])
        try root.unlink(at: "images/" + ByteString(wrong.id.hex))
        try root.unlink(at: "objects/" + ByteString(objects[1].id.objectPath))
        let report = try repository.check()
        #expect(report.problems.map(\.description) == ["fsck: image-missing-object: images/\(sound.id): \(objects[1].id)"])
        #expect(report.imagesCorrupted == 0 && report.missingObjects == 1)
        _ = try repository.store(content(101))

        try root.symlink(target: "../objects/" + ByteString(sound.id.objectPath), at: "images/name")
        #expect(try found(.linkMismatch) == ["fsck: link-mismatch: images/name: \(sound.id): is another object than the name says"])
        try root.unlink(at: "images/name")

        let path = "objects/" + ByteString(sound.id.objectPath)
        let bytes = try scratch.read(path)
        var missed: [Int] = []
        for index in stride(from: 0, to: bytes.count, by: 61) {
            var damaged = bytes
            damaged[index] ^= 0x04
            try scratch.write(path, damaged)
            let names = try repository.check(metadataOnly: true, threads: 1).problems.map(\.path)
            if names != ["images/" + ByteString(sound.id.hex)] { missed.append(index) }
        }
        #expect(missed == [])
    }
}
