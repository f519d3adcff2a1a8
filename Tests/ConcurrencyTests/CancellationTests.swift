import ComposefsConcurrency
import Synchronization
import Testing

@Suite struct CancellationTests {
    @Test func copiesShareOneState() {
        let cancellation = Cancellation()
        let copy = cancellation
        #expect(!copy.isCancelled)
        #expect(throws: Never.self) { try copy.check() }
        cancellation.cancel()
        #expect(copy.isCancelled)
        #expect(throws: CancellationError.self) { try copy.check() }
    }

    @Test func actionsRunOnceAndInOrder() {
        let cancellation = Cancellation()
        let ran = Mutex<[Int]>([])
        let first = cancellation.onCancel { ran.withLock { $0.append(1) } }
        let second = cancellation.onCancel { ran.withLock { $0.append(2) } }
        do { _ = cancellation.onCancel { ran.withLock { $0.append(3) } } }
        cancellation.cancel()
        cancellation.cancel()
        #expect(ran.withLock { $0 } == [1, 2])
        let late = cancellation.onCancel { ran.withLock { $0.append(4) } }
        #expect(ran.withLock { $0 } == [1, 2, 4])
        withExtendedLifetime((first, second, late)) {}
    }

    @Test func sleepEndsEarly() {
        let cancellation = Cancellation()
        #expect(cancellation.sleep(.milliseconds(20)))
        let start = ContinuousClock.now
        #expect(startThread("test") { cancellation.cancel() })
        #expect(!cancellation.sleep(.seconds(60)))
        #expect(!cancellation.sleep(.seconds(60)))
        #expect(ContinuousClock.now - start < .seconds(30))
    }
}
