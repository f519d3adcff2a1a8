import ComposefsOCI
import Testing

/// A program cancels every long call with `import ComposefsOCI` alone. This file must have no other import of the library.
struct CancellationTests {
    @Test func cancellationNeedsNoOtherImport() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let other = try Store.openOrCreate(folder.path + "/other").store
        let cancellation = Cancellation()
        #expect(!cancellation.isCancelled)
        var pullOptions = PullOptions()
        pullOptions.cancellation = cancellation
        #expect(try blocking { try store.pull(quickstart, pullOptions) }.newLayers == 2)
        cancellation.cancel()

        let name = try #require(try store.images.tags().first).name
        #expect(throws: CancellationError.self) { try store.pull(quickstart, pullOptions) }
        await #expect(throws: CancellationError.self) { try await store.pullAllPlatforms(quickstart, pullOptions) }
        var pushOptions = PushOptions()
        pushOptions.cancellation = cancellation
        #expect(throws: CancellationError.self) { try store.push(name, to: "oci:\(folder.path)/out", pushOptions) }
        await #expect(throws: CancellationError.self) { try await store.push(name, to: "oci:\(folder.path)/out", pushOptions) }
        var copyOptions = CopyOptions()
        copyOptions.cancellation = cancellation
        #expect(throws: CancellationError.self) { try other.copy(name, from: store, copyOptions) }
        await #expect(throws: CancellationError.self) { try await other.copy(name, from: store, copyOptions) }
        #expect(try other.images.tags().isEmpty)
    }

    /// Runs the blocking form of a call: in an async function the compiler would choose the async one.
    private func blocking<Value>(_ body: () throws -> Value) rethrows -> Value { try body() }
}
