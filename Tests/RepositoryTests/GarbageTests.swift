import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@Suite struct GarbageTests {
    /// Golden: an object, and a stream with another object, no references.
    @Test(arguments: [true, false])
    func rawRepository(_ withRoot: Bool) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let loose = try repository.store(content(32 << 10))
        let external = try repository.store(content(64 << 10, seed: 1))
        let stream = try repository.storeStream(objects: [external])
        var publication = Repository.Publication()
        publication.stream("test-stream", stream.id)
        try repository.publish(publication)
        let roots: [ByteString] = withRoot ? ["test-stream", "unknown"] : []
        let plan = try repository.collectGarbage(dryRun: true, extraRoots: roots)
        #expect(try repository.objectSize(loose.id) != nil)
        let report = try repository.collectGarbage(extraRoots: roots)
        #expect(report == plan)
        if withRoot {
            #expect(report.objectsRemoved == 1 && report.bytesRemoved == 32 << 10)
            #expect(report.streamsRemoved == 0 && report.imagesRemoved == 0 && report.temporariesRemoved == 0)
            #expect(try repository.objectSize(external.id) == 64 << 10)
        } else {
            #expect(report.objectsRemoved == 3 && report.bytesRemoved == 96 << 10 + stream.size)
            #expect(report.streamsRemoved == 1 && report.imagesRemoved == 0)
            #expect(try scratch.listing().filter { $0.value != "/" }.keys.sorted() == ["meta.json"])
        }
        #expect(try repository.collectGarbage(extraRoots: roots) == GarbageReport())
        #expect(try repository.check().problems == [])
    }

    /// tag → manifest → config → layer → file, each by a named reference.
    private func chain(_ repository: Repository) throws -> [StoredObject] {
        let file = try repository.store(content(5000))
        let layer = try repository.storeStream(inline: [1], objects: [file])
        let config = try repository.storeStream(inline: [2], named: [("layer", layer.id)], type: StreamContentType.config)
        let manifest = try repository.storeStream(
            inline: [3], named: [("config", config.id), ("layer", layer.id)], type: StreamContentType.manifest)
        var publication = Repository.Publication()
        publication.stream("layer", layer.id)
        publication.stream("config", config.id)
        publication.stream("manifest", manifest.id)
        publication.streamReference("oci/tag", to: "manifest")
        try repository.publish(publication)
        return [file, layer, config, manifest]
    }

    @Test func referencesKeepWhatTheyReach() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        _ = try chain(repository)
        #expect(try repository.collectGarbage() == GarbageReport())
        #expect(try repository.removeStreamReference("oci/tag"))
        let report = try repository.collectGarbage()
        #expect(report.objectsRemoved == 4 && report.streamsRemoved == 3)
        #expect(try repository.check().problems == [])
    }

    /// A layer whose name is lost still holds what the config needs.
    @Test func streamsWithoutNames() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let all = try chain(repository)
        try scratch.directory().unlink(at: "streams/layer")
        #expect(try repository.collectGarbage() == GarbageReport())
        for object in all { #expect(try repository.objectSize(object.id) == object.size) }
    }

    @Test func circlesEnd() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        // A circle needs a digest of itself; names of streams may form one all the same.
        let first = try repository.storeStream(inline: [1])
        let second = try repository.storeStream(inline: [2], named: [("a", first.id), ("b", first.id)])
        var publication = Repository.Publication()
        publication.stream("one", second.id)
        publication.stream("two", second.id)
        publication.streamReference("r", to: "one")
        try repository.publish(publication)
        // The second name leads to the same object, which is kept: so is the name.
        #expect(try repository.collectGarbage() == GarbageReport())
        #expect(try repository.streamNames() == ["one", "two"])
    }

    @Test func danglingReferenceIsReported() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        _ = try chain(repository)
        let loose = try repository.store([1])
        let root = try scratch.directory()
        try root.symlink(target: "../../oci-manifest-gone", at: "streams/refs/oci/dead")
        try root.makeDirectory(at: "images")
        try root.makeDirectory(at: "images/refs")
        try root.symlink(target: "../" + ByteString(loose.id.hex), at: "images/refs/dead")
        let report = try repository.collectGarbage()
        #expect(report.objectsRemoved == 1)
        #expect(report.danglingReferences == ["images/refs/dead", "streams/refs/oci/dead"])
        #expect(try repository.streamReference("oci/dead") != nil)
        #expect(report.bytesRemoved == 1 && report.streamsRemoved == 0 && report.imagesRemoved == 0 && report.temporariesRemoved == 0)
    }

    /// If a reference cannot be read, the objects that it keeps are unknown: nothing is removed.
    @Test func unreadableRootStopsEverything() throws {
        for damage in 0..<4 {
            let scratch = try Scratch()
            let repository = try scratch.create()
            let all = try chain(repository)
            _ = try repository.store([1])
            let root = try scratch.directory()
            let victim = all[damage == 0 ? 3 : damage == 1 ? 2 : 1]
            let path = "objects/" + ByteString(victim.id.objectPath)
            if damage == 3 { try root.unlink(at: path) } else { try scratch.write(path, content(Int(victim.size))) }
            let before = try scratch.listing()
            if damage == 3 {
                guard case .unreadableRoot = failure({ _ = try repository.collectGarbage() }) else {
                    Issue.record("collected although a layer's stream is missing")
                    continue
                }
            } else {
                guard case .unreadableRoot(let name, let fault) = failure({ _ = try repository.collectGarbage() }) else {
                    Issue.record("collected although \(damage) is damaged")
                    continue
                }
                #expect(name.hasPrefix("streams/manifest"))
                #expect("\(fault)".contains(victim.id.hex))
                #expect(failure { _ = try repository.collectGarbage(dryRun: true) } != nil)
            }
            #expect(try scratch.listing() == before)
        }
    }

    @Test func strayFilesStay() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        _ = try repository.store([1])
        try scratch.write("notes.txt", [1])
        try scratch.directory().makeDirectoryIfMissing(at: "objects/00")
        try scratch.write("objects/00/short", [1])
        try scratch.directory().makeDirectory(at: "streams")
        try scratch.write("streams/file", [1])
        #expect(try repository.collectGarbage().objectsRemoved == 1)
        let left = try scratch.listing()
        #expect(left["notes.txt"] == "1" && left["objects/00/short"] == "1" && left["streams/file"] == "1")
    }

    /// Dying at any point of a collection leaves a store without fault.
    @Test func everyCrashPoint() throws {
        var points = 0
        for limit in 0..<60 {
            let scratch = try Scratch()
            do {
                let repository = try scratch.create()
                _ = try chain(repository)
                try repository.removeStreamReference("oci/tag")
                let kept = try repository.storeStream(inline: [9], objects: [try repository.store(content(77))])
                var publication = Repository.Publication()
                publication.stream("kept", kept.id)
                publication.streamReference("kept", to: "kept")
                try repository.publish(publication)
                try scratch.write("objects/.tmp-object-0123456789ab", [1])
            }
            let recorder = Recorder(stopAfter: limit)
            recorder.observe { _ = try? scratch.open().collectGarbage() }
            guard recorder.isStopped else { break }
            points += 1
            let repository = try scratch.open()
            #expect(try repository.check().problems == [], "after call \(limit)")
            _ = try repository.collectGarbage()
            #expect(try scratch.listing().filter { $0.value != "/" }.count == 5, "after call \(limit)")
        }
        #expect(points > 8)
    }

    /// An object that is being written has no name yet: it survives, and so does its marker's purpose.
    @Test func openWriter() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        var writer = try repository.makeObjectWriter()
        try writer.append(content(100))
        #expect(try repository.collectGarbage() == GarbageReport())
        #expect(try scratch.listing()[".staging"] == nil)
        #expect(try writer.finish().isNew)
        #expect(try scratch.listing().keys.contains { $0.contains("/.active-") })
    }
}
