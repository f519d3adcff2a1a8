import ComposefsLinuxSystem
import ComposefsOCI
import Glibc
import Synchronization
import Testing

/// Makes one fsync(2) of the thread fail.
private final class OneSyncFails: SystemCallObserver {
    private let thread = pthread_self()
    private let index: Int
    private let count = Atomic<Int>(0)

    init(_ index: Int) { self.index = index }

    var wasReached: Bool { count.load(ordering: .relaxed) > index }

    func before(_ call: SystemCall) -> Errno? {
        guard pthread_self() == thread, [.fsync, .fdatasync, .syncfs].contains(call.kind) else { return nil }
        return count.add(1, ordering: .relaxed).oldValue == index ? .inputOutput : nil
    }

    func after(_ call: SystemCall, result: Int) {}
}

/// A repair whose sync failed: all reads well afterwards, and may be lost with the power.
struct RepairFaultTests {
    @Test func aFailedSyncIsNoSuccess() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let image = try store.images.open("image").image
        let links = image.allImageIDs.map { folder.path + "/repository/images/" + ByteString($0.hex) }
        var failures = 0
        for index in 0... {
            // The link that the repair writes again.
            for link in links { try FileDescriptor.currentDirectory.unlink(at: link) }
            let observer = OneSyncFails(index)
            Kernel.observe(observer)
            defer { Kernel.observe(nil) }
            let outcome = Result { try store.repair(StoreRepairOptions()) }
            guard observer.wasReached else {
                #expect(try outcome.get().isClean)
                break
            }
            failures += 1
            switch outcome {
            case .failure(let error): #expect("\(error)".contains("Input/output error"), "sync \(index)")
            case .success(let report):
                let images = report.repair.images
                #expect(
                    !report.isClean && "\(images[0].failure.map { "\($0)" } ?? "")".contains("Input/output error"),
                    "sync \(index): \(images)")
            }
            Kernel.observe(nil)
            #expect(try Result { try store.repair(StoreRepairOptions()) }.get().isClean)
        }
        #expect(failures > 0)
    }
}
