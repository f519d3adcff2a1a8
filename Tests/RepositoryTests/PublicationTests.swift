import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@Suite struct PublicationTests {
    /// What a small pull does: two layers' files and streams, a manifest, an image, a tag.
    private func pull(_ repository: Repository, seed: UInt8 = 0) throws {
        try repository.beginPull()
        var layers: [StoredObject] = []
        for number in 0..<2 {
            let file = try repository.store(content(1000 + number, seed: seed))
            let layer = try repository.storeStream(inline: [seed, UInt8(number)], objects: [file])
            try repository.stage(ByteString("oci-layer-\(seed)-\(number)"), layer.id)
            layers.append(layer)
        }
        let manifest = try repository.storeStream(
            inline: [], objects: [], named: layers.enumerated().map { ("layer:\($0.offset)", $0.element.id) },
            type: StreamContentType.manifest)
        var publication = Repository.Publication()
        for (number, layer) in layers.enumerated() { publication.stream(ByteString("oci-layer-\(seed)-\(number)"), layer.id) }
        publication.stream(ByteString("oci-manifest-\(seed)"), manifest.id)
        publication.streamReference(ByteString("oci/tag-\(seed)"), to: ByteString("oci-manifest-\(seed)"))
        try repository.publish(publication)
    }

    @Test func order() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let recorder = Recorder()
        try recorder.observe { try pull(repository) }
        let calls = recorder.recorded
        func index(_ name: String, where matches: (Recorder.Call) -> Bool) throws -> Int {
            let found = calls.firstIndex(where: matches)
            return try #require(found, "\(name)")
        }
        let lastObject = try #require(calls.lastIndex { $0.kind == .link && $0.path.hasPrefix("objects/") })
        let sync = try index("syncfs") { $0.kind == .syncfs }
        let firstStream = try index("stream") { $0.kind == .symlink && $0.path.hasPrefix("streams/") }
        let lastStream = try #require(calls.lastIndex { $0.kind == .symlink && $0.path.hasPrefix("streams/oci-") })
        let streamsSync = try index("fsync streams") { $0.kind == .fsync && $0.descriptor.hasSuffix("/streams") }
        let tag = try index("tag") { $0.kind == .symlink && $0.path == "streams/refs/oci/tag-0" }
        let tagSync = try index("fsync refs") { $0.kind == .fsync && $0.descriptor.hasSuffix("/streams/refs/oci") }
        #expect(lastObject < sync && sync < firstStream && lastStream < streamsSync && streamsSync < tag && tag < tagSync)
        // Directories exist before the sync that makes them durable.
        for (position, call) in calls.enumerated() where call.kind == .makeDirectory { #expect(position < sync, "\(call.path)") }
        #expect(calls.filter { $0.kind == .syncfs }.count == 1)
        #expect(calls.filter { $0.kind == .fsync }.count == 2)
        // What was staged is forgotten last.
        let unstaged = try index("unstage") { $0.kind == .unlink && $0.path.hasSuffix("oci-layer-0-0") }
        #expect(unstaged > tagSync)
        #expect(try scratch.listing().keys.allSatisfy { !$0.hasPrefix(".staging") })
    }

    /// The process dies after each of its calls in turn. The store opens, is without fault, and the next pull completes it.
    @Test func everyCrashPoint() throws {
        var points = 0
        for limit in 0..<200 {
            let scratch = try Scratch()
            do { try pull(scratch.create(), seed: 7) }
            let recorder = Recorder(stopAfter: limit)
            recorder.observe {
                // The handle is destroyed here, too, as at the end of a process: nothing that it does then is done.
                _ = try? pull(scratch.open())
            }
            guard recorder.isStopped else { break }
            points += 1
            let repository = try scratch.open()
            let report = try repository.check()
            #expect(report.problems == [], "after call \(limit)")
            #expect(try repository.streamReference("oci/tag-7") != nil)
            if try repository.streamReference("oci/tag-0") != nil { #expect(try repository.stream("oci-manifest-0") != nil) }
            try pull(repository)
            #expect(try repository.check().problems == [])
            #expect(try scratch.listing()["streams/refs/oci/tag-0"] == "-> ../../oci-manifest-0")
            let garbage = try repository.collectGarbage()
            #expect(garbage.objectsRemoved == 0 && garbage.streamsRemoved == 0, "after call \(limit): \(garbage)")
            #expect(try scratch.listing().keys.allSatisfy { !$0.hasPrefix(".") && !$0.contains("/.") }, "after call \(limit)")
        }
        #expect(points > 30)
    }

    /// A sync that fails makes nothing visible.
    @Test func failingSync() throws {
        final class NoSync: SystemCallObserver {
            func before(_ call: SystemCall) -> Errno? { call.kind == .syncfs ? .inputOutput : nil }
            func after(_ call: SystemCall, result: Int) {}
        }
        let scratch = try Scratch()
        let repository = try scratch.create()
        Recorder(forwarding: NoSync()).observe {
            #expect(failure { try pull(repository) }?.description.hasSuffix("Input/output error") == true)
        }
        #expect(try scratch.listing().keys.allSatisfy { !$0.hasPrefix("streams/oci") && !$0.contains("tag-0") })
        #expect(try repository.stagedStream("oci-layer-0-1") != nil)
        try pull(repository)
        #expect(try repository.check().problems == [])
    }

    @Test func anotherAlgorithmIsRefused() throws {
        let repository = try Scratch().create(.sha256)
        let other = [UInt8](repeating: 1, count: 10).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) }
        var publication = Repository.Publication()
        publication.stream("s", other)
        guard case .algorithmMismatch = failure({ try repository.publish(publication) }) else {
            Issue.record("accepted")
            return
        }
    }
}
