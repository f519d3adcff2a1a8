import ComposefsConcurrency
import ComposefsLinuxSystem
import Synchronization
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
            if let index = event.layerIndex {
                #expect(event.component == .layer(index: index, digest: try Quickstart.digest(Quickstart.blobs[index])))
                #expect(event.bytesTotal == [19597, 1063][index])
            } else if !names.isEmpty {
                #expect(event.bytesTotal == 19597 + 1063)
            }
            switch event.phase {
            case .resolving(let reference):
                names.append("resolving")
                #expect(reference == quickstart && event.bytesTotal == 0)
            case .resolved(let found):
                names.append("resolved")
                #expect(found.manifest.hex == Quickstart.manifest)
                #expect(found.layers.map(\.digest.hex) == Quickstart.blobs)
                #expect(found.layers.map(\.size) == [19597, 1063])
            case .queued:
                names.append("queued")
                #expect(event.bytesDone == 0)
            case .started: #expect(try received.updateValue(0, forKey: #require(event.layerIndex)) == nil)
            case .bytes:
                let index = try #require(event.layerIndex)
                #expect(event.bytesDone > received[index] ?? .max)
                received[index] = event.bytesDone
            case .verified: #expect(event.bytesDone == event.bytesTotal)
            case .stored: names.append("stored")
            case .skipped, .waiting, .retrying, .resumed, .tagMoved: names.append("\(event.phase)")
            case .materializing, .materialized, .stitching, .diskStored: names.append("\(event.phase)")
            case .merging: names.append("merging")
            case .writingImage: names.append("writing")
            case .publishing: names.append("publishing")
            case .done:
                names.append("done")
                #expect(event.bytesDone == event.bytesTotal)
            }
        }
        #expect(names == ["resolving", "resolved", "queued", "queued", "stored", "stored", "merging", "writing", "publishing", "done"])
        #expect(received == [0: 19597, 1: 1063])
        #expect(try await pull.result.manifestDigest.hex == Quickstart.manifest)
    }

    /// The images of layers follow the layers, and what joins them follows the images.
    @Test(arguments: [false, true]) func diskEvents(isStored: Bool) async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        if isStored { _ = try await store.pull(quickstart, PullOptions(name: "image")) }
        var options = PullOptions(policy: .missing, name: "image")
        options.disks = [DiskRequest(.vmdk)]
        let pull = store.startPull(quickstart, options)
        var (ofLayers, ofImage): ([[String]], [String]) = ([[], []], [])
        for await event in pull.events {
            switch event.phase {
            case .stored, .skipped(.present): try ofLayers[#require(event.layerIndex)].append("there")
            case .materializing(.vmdk, let size):
                #expect(size > 4096 && size.isMultiple(of: 4096))
                try ofLayers[#require(event.layerIndex)].append("written")
            case .materialized(.vmdk): try ofLayers[#require(event.layerIndex)].append("done")
            case .stitching(.vmdk): ofImage.append("stitching")
            case .diskStored(.vmdk): ofImage.append("stored")
            case .publishing: ofImage.append("publishing")
            case .done: ofImage.append("done")
            default: break
            }
        }
        #expect(ofLayers == [["there", "written", "done"], ["there", "written", "done"]])
        #expect(ofImage == ["stitching", "stored", "publishing", "done"])
        let disk = try #require(try await pull.result.disks.first)
        // It is kept now: nothing is written again.
        let steps = Mutex<[DiskStep]>([])
        let again = try store.image("image")
        #expect(try ImageDisks(store.images).keep(DiskRequest(.vmdk), of: again) { step in steps.withLock { $0.append(step) } } == disk)
        #expect(steps.withLock { $0 }.isEmpty)
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

    /// The pull stops between the manifest and the first layer.
    @Test(arguments: [false, true]) func cancelledPullLeavesNothing(byTheWaiting: Bool) async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let (reached, go) = (Semaphore(0), Semaphore(0))
        let options = PullOptions(observer: { event in
            guard case .resolved = event.phase else { return }
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

    /// The form that blocks its thread can be cancelled from another one, and takes one that was cancelled before.
    @Test func blockingPullIsCancelled() throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        var options = PullOptions()
        options.cancellation.cancel()
        #expect(throws: CancellationError.self) { try store.pull(quickstart, options) }
        options.cancellation = Cancellation()
        options.observer = { [cancellation = options.cancellation] event in
            if event.layerIndex != nil { cancellation.cancel() }
        }
        #expect(throws: CancellationError.self) { try store.pull(quickstart, options) }
        #expect(try store.images.tags().isEmpty)
        options = PullOptions()
        #expect(try store.pull(quickstart, options).newLayers == 2)
    }

    /// Without a reader, memory does not grow with the bytes, and only byte counts are dropped.
    @Test func unreadEventsAreFew() async throws {
        let events = PullEvents()
        let digest = try Quickstart.digest(Quickstart.manifest)
        func add(_ index: Int, _ phase: PullEvent.Phase, _ done: UInt64) {
            events.buffer.add(PullEvent(.layer(index: index, digest: digest), phase, bytesDone: done, bytesTotal: 1 << 20))
        }
        for index in 0..<3 { add(index, .started, 0) }
        for done in 1...100_000 as ClosedRange<UInt64> { add(Int(done % 3), .bytes, done) }
        #expect(events.buffer.count == 6)
        for tries in 1...1000 as ClosedRange<UInt64> {
            add(0, .retrying(reason: "try \(tries)", delay: .seconds(1)), 100_000)
            add(0, .resumed(from: 100_000), 100_000)
            add(0, .bytes, 100_000 + tries)
        }
        add(0, .verified, 1 << 20)
        add(0, .stored, 1 << 20)
        #expect(events.buffer.count < 20)
        events.buffer.finish()
        var seen: [PullEvent] = []
        for await event in events { seen.append(event) }
        #expect(seen.count { $0.phase == .started } == 3)
        #expect(seen.filter { $0.layerIndex == 1 }.map(\.bytesDone) == [0, 100_000])
        #expect(seen.contains { $0.phase == .retrying(reason: "try 1000", delay: .seconds(1)) })
        #expect(seen.suffix(2).map(\.phase) == [.verified, .stored])
        // The counts of a layer never decrease, except after a retry.
        let counts = seen.filter { $0.layerIndex == 0 }.map(\.bytesDone)
        #expect(counts == counts.sorted())
    }

    /// A waiting reader is woken, and a cancelled one gets the end.
    @Test func readersWait() async throws {
        let events = PullEvents()
        let reader = Task { () -> [PullEvent] in
            var seen: [PullEvent] = []
            for await event in events { seen.append(event) }
            return seen
        }
        await Task.yield()
        events.buffer.add(PullEvent(.image, .merging))
        await Task.yield()
        events.buffer.add(PullEvent(.image, .done))
        events.buffer.finish()
        #expect(await reader.value.map(\.phase) == [.merging, .done])
        let endless = PullEvents()
        let cancelled = Task { for await _ in endless {} }
        cancelled.cancel()
        await cancelled.value
    }
}
