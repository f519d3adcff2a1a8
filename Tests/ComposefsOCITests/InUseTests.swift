import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsTestSupport
import Testing

/// What is in use stays, as a Swift program meets it.
struct InUseTests {
    /// The whole content of the image's larger file.
    private func read(_ target: ByteString) throws -> Int {
        try FileDescriptor.open(target + "/usr/lib/table.txt", .readOnly).readAll(limit: 1 << 20).count
    }

    /// With a source that names the image, and with another source.
    @Test(arguments: [nil, "root file system"] as [ByteString?])
    func mountedByTheKernel(_ source: ByteString?) async throws {
        try requireMounting()
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let target = try folder.makeDirectory("target")
        defer { try? unmount(target, lazily: true) }
        let id = try store.mount("image", at: target, source.map { MountOptions(source: $0) } ?? MountOptions())
        let size = try read(target)
        #expect(try store.repository.imageUses().images[id] == [ImageUse(.mounted, target)])
        do {
            try store.images.untag("image")
            Issue.record("untagged")
        } catch ImageStoreError.imageInUse("image", let uses) {
            #expect(uses == [ImageUse(.mounted, target)])
        }
        try store.images.untag("image", force: true)
        for _ in 0..<2 {
            let report = try await store.collectGarbage()
            #expect(report.objectsRemoved == 0 && report.imagesInUse == [ImageInUse(id: id, uses: [ImageUse(.mounted, target)])])
            #expect(try read(target) == size && size > 1000)
        }
        try unmount(target)
        let report = try await store.collectGarbage()
        #expect(report.objectsRemoved > 5 && report.temporariesRemoved == (source == nil ? 0 : 1))
        #expect(try store.repository.imageIDs() == [])
    }

    /// The handle that serves collects, too.
    @Test func servedByThisProcess() async throws {
        try requireMounting()
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let target = try folder.makeDirectory("target")
        defer { try? unmount(target, lazily: true) }
        let served: ServedImage
        do {
            served = try store.serve("image", at: target)
        } catch let error as FuseError {
            try Test.cancel("no FUSE here: \(error)")
        }
        let running = Task.detached { try await onOwnThread { served.run() } }
        try store.images.untag("image", force: true)
        let report = try await store.prune(all: true, wait: .upTo(.zero))
        #expect(report.garbage.objectsRemoved == 0 && report.garbage.imagesInUse.count == 1)
        let size = try await onOwnThread { try read(target) }
        #expect(size > 1000)
        try served.unmount()
        try await running.value
        #expect(try await store.collectGarbage(wait: .upTo(.zero)).objectsRemoved > 5)
    }

    @Test func waitingEnds() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let other = try Store.open(store.repository.path)
        do {
            _ = try await store.prune(all: true, wait: .upTo(.milliseconds(20)))
            Issue.record("pruned")
        } catch RepositoryError.busy(store.repository.path, let holders) {
            #expect(holders.map(\.number) == [Host.processID])
        }
        // By the value that was passed, and by the task.
        let cancellation = Cancellation()
        cancellation.cancel()
        await #expect(throws: CancellationError.self) { try await store.collectGarbage(cancellation: cancellation) }
        let task = Task { try await store.prune(all: true) }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try other.images.tags().map(\.name) == ["image"])
    }
}
