import LinuxSystem
import Testing

@testable import ComposefsOCI

struct PullTests {
    @Test func resultNamesWhatTheStoreHas() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let first = try await store.pull(quickstart, PullOptions(name: "first"))
        #expect(first.manifestDigest.hex == Quickstart.manifest)
        #expect(first.configDigest.hex == Quickstart.config)
        #expect(first.name == "first" && first.isContainer)
        #expect(first.config?.diffIDs.map(\.hex) == Quickstart.diffIDs)
        #expect(first.newLayers == 2 && first.presentLayers == 0)
        #expect(first.statistics.objects == first.statistics.newObjects + first.statistics.presentObjects)
        // Two of the fixture's files have the same content.
        #expect(first.statistics.presentObjects == 1)
        let image = try #require(try store.images.image(first.manifestDigest))
        #expect(image.manifestStream == first.manifestStream && image.configStream == first.configStream)
        #expect(try store.repository.stream(StreamName.manifest(first.manifestDigest)) == first.manifestStream)
        #expect(try store.repository.stream(StreamName.config(first.configDigest)) == first.configStream)
        #expect(try store.repository.imageIDs().contains(try #require(first.imageID)))
        #expect(image.imageID(store.repository.erofsFormats.default) == first.imageID)

        let second = try await store.pull(quickstart, PullOptions(name: "second"))
        #expect(second.newLayers == 0 && second.presentLayers == 2 && second.statistics.objects == 0)
        #expect(second.imageIDs == first.imageIDs)
        #expect(second.manifestStream == first.manifestStream && second.configStream == first.configStream)
        #expect(try store.images.contains(first.manifestDigest))
        #expect(try !store.images.contains(try Quickstart.digest(Quickstart.config)))
    }

    @Test func eventsComeInOrder() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let pull = store.startPull(quickstart)
        var names: [String] = []
        var received: [Int: UInt64] = [:]
        for await event in pull.events {
            switch event {
            case .resolving(let reference):
                names.append("resolving")
                #expect(reference == quickstart)
            case .resolved(let manifest, let layers):
                names.append("resolved")
                #expect(manifest.hex == Quickstart.manifest)
                #expect(layers.map(\.digest.hex) == Quickstart.blobs)
                #expect(layers.map(\.size) == [19597, 1063])
            case .layerStarted(let index): #expect(received.updateValue(0, forKey: index) == nil)
            case .layerProgress(let index, let bytes):
                #expect(bytes > received[index] ?? .max)
                received[index] = bytes
            case .layerStored: names.append("stored")
            case .layerPresent: names.append("present")
            case .merging: names.append("merging")
            case .writingImage: names.append("writing")
            case .publishing: names.append("publishing")
            case .done: names.append("done")
            }
        }
        #expect(names == ["resolving", "resolved", "stored", "stored", "merging", "writing", "publishing", "done"])
        #expect(received == [0: 19597, 1: 1063])
        #expect(try await pull.result.manifestDigest.hex == Quickstart.manifest)
    }

    @Test func eventsEndWithAFailure() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let pull = store.startPull("oci:\(folder.path)/nothing")
        for await _ in pull.events {}
        await #expect(throws: (any Error).self) { try await pull.result }
        await #expect(throws: OCIError.self) { try await store.pull("https://example.org/image") }
        #expect(try store.images.tags().isEmpty)
    }

    /// Stopped between the manifest and the first layer.
    @Test(arguments: [false, true]) func cancelledPullLeavesNothing(byTheWaiting: Bool) async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let (reached, go) = (Semaphore(0), Semaphore(0))
        let options = PullOptions(observer: { event in
            guard case .resolved = event else { return }
            reached.signal()
            go.wait()
        })
        let outcome: Result<PullResult, any Error>
        if byTheWaiting {
            let waiting = Task { try await store.startPull(quickstart, options).result }
            try await onOwnThread { reached.wait() }
            waiting.cancel()
            go.signal()
            outcome = await waiting.result
        } else {
            let pull = store.startPull(quickstart, options)
            try await onOwnThread { reached.wait() }
            pull.cancel()
            go.signal()
            for await _ in pull.events {}
            do { outcome = .success(try await pull.result) } catch { outcome = .failure(error) }
        }
        #expect(throws: CancellationError.self) { try outcome.get() }
        #expect(try store.images.tags().isEmpty)
        #expect(try store.repository.streamNames().isEmpty)
        #expect(try await store.check().isClean)
        #expect(try await store.pull(quickstart).newLayers == 2)
    }

    @Test func cancelledBeforeItBegan() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await store.pull(quickstart)
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try store.images.tags().isEmpty)
    }

    @Test func interruptionReachesWhoWaits() {
        let (early, late) = (Interruption(), Interruption())
        let calls = Semaphore(0)
        early.set()
        early.whenSet { calls.signal() }
        calls.wait()
        late.whenSet { calls.signal() }
        #expect(!late.isSet)
        late.set()
        calls.wait()
        #expect(throws: CancellationError.self) { try late.check() }
    }

    @Test func progressIsThinned() throws {
        var thinning = EventThinning()
        func lets(_ events: [PullEvent]) -> Int { events.count { thinning.lets($0) } }
        let digest = try Quickstart.digest(Quickstart.manifest)
        let layers = [(digest: digest, size: UInt64(1_000_000)), (digest: digest, size: UInt64(0))]
        var told = lets([.layerProgress(index: 0, received: 1), .resolved(manifest: digest, layers: layers)])
        #expect(told == 2)
        told = lets(stride(from: UInt64(100), through: 1_000_000, by: 100).map { .layerProgress(index: 0, received: $0) })
        #expect(told == 200)
        told = lets([
            .layerProgress(index: 0, received: 1_000_000), .layerProgress(index: 1, received: 0), .layerProgress(index: 7, received: 1),
            .layerStored(index: 0),
        ])
        #expect(told == 4)
    }
}
