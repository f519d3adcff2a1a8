import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import Glibc
import Synchronization
import Testing

@Suite struct ThreadTests {
    @Test func queueKeepsOrderAndBound() async throws {
        let queue = BoundedQueue<Int>(capacity: 3)
        let highest = Atomic<Int>(0)
        async let produced: Void = onOwnThread {
            for number in 0..<5000 {
                #expect(queue.push(number))
                highest.store(number, ordering: .sequentiallyConsistent)
            }
            queue.close()
        }
        let received = try await onOwnThread { () -> [Int] in
            var all: [Int] = []
            while let number = queue.pop() {
                // The queue holds at most 3 elements that were not taken.
                #expect(highest.load(ordering: .sequentiallyConsistent) <= number + 4)
                all.append(number)
            }
            return all
        }
        try await produced
        #expect(received == Array(0..<5000))
        #expect(queue.push(1) == false)
        #expect(queue.pop() == nil)
    }

    @Test func closedQueueGivesWhatIsLeft() {
        let queue = BoundedQueue<Int>(capacity: 0)
        #expect(queue.push(1))
        queue.close()
        #expect(queue.pop() == 1)
        #expect(queue.pop() == nil)
    }

    @Test func manyProducersAndConsumers() async throws {
        let queue = BoundedQueue<Int>(capacity: 4)
        let sum = Atomic<Int>(0)
        let consumers = WorkerPool(threads: 3)
        let producers = WorkerPool(threads: 3)
        for _ in 0..<3 {
            consumers.submit { while let number = queue.pop() { sum.add(number, ordering: .relaxed) } }
            producers.submit { for number in 1...2000 { _ = queue.push(number) } }
        }
        try await onOwnThread {
            producers.shutdown()
            queue.close()
            consumers.shutdown()
        }
        #expect(sum.load(ordering: .relaxed) == 3 * 2000 * 2001 / 2)
    }

    @Test func cancelWakesBothSidesAndDropsElements() async throws {
        final class Element: Sendable {}
        let full = BoundedQueue<Element>(capacity: 1)
        weak var held: Element?
        do {
            let element = Element()
            held = element
            full.push(element)
        }
        #expect(held != nil)
        async let pushed = onOwnThread { full.push(Element()) }
        Host.sleep(milliseconds: 20)
        full.cancel()
        #expect(try await pushed == false)
        #expect(held == nil)
        #expect(full.pop() == nil)

        let empty = BoundedQueue<Int>(capacity: 1)
        async let popped = onOwnThread { empty.pop() }
        Host.sleep(milliseconds: 20)
        empty.cancel()
        #expect(try await popped == nil)
    }

    @Test func poolRunsEverythingBeforeShutdownReturns() async throws {
        let pool = WorkerPool(threads: 3)
        #expect(pool.threadCount == 3)
        let done = Atomic<Int>(0)
        let semaphore = Semaphore(2)
        let inside = Atomic<Int>(0)
        let most = Atomic<Int>(0)
        for _ in 0..<3000 {
            pool.submit {
                semaphore.withPermit {
                    let now = inside.add(1, ordering: .sequentiallyConsistent).newValue
                    most.max(now, ordering: .sequentiallyConsistent)
                    inside.subtract(1, ordering: .sequentiallyConsistent)
                }
                done.add(1, ordering: .sequentiallyConsistent)
            }
        }
        try await onOwnThread { pool.shutdown() }
        #expect(done.load(ordering: .sequentiallyConsistent) == 3000)
        #expect(most.load(ordering: .sequentiallyConsistent) <= 2)
        let caller = pthread_self()
        let runner = Atomic<UInt>(0)
        pool.submit { runner.store(pthread_self(), ordering: .sequentiallyConsistent) }
        #expect(runner.load(ordering: .sequentiallyConsistent) == caller)
    }

    @Test func ownThreadReturnsAndThrows() async throws {
        let thread = try await onOwnThread { pthread_self() }
        #expect(thread != pthread_self())
        await #expect(throws: SystemError.self) { try await onOwnThread { _ = try FileDescriptor.open("/no/such", .readOnly) } }
    }

    @Test(arguments: [
        // From `date -u`.
        (0, "1970-01-01T00:00:00Z"), (951_782_399, "2000-02-28T23:59:59Z"), (951_782_400, "2000-02-29T00:00:00Z"),
        (1_709_164_800, "2024-02-29T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"), (-2_208_988_801, "1899-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"), (253_402_300_799, "9999-12-31T23:59:59Z"), (1_798_761_599, "2026-12-31T23:59:59Z"),
        (Int64.max, "9999-12-31T23:59:59Z"), (Int64.min, "0000-01-01T00:00:00Z"),
    ])
    func rfc3339(_ seconds: Int64, _ text: String) { #expect(Host.rfc3339(seconds) == text) }

    @Test func hostFacts() throws {
        let name = Host.randomName()
        #expect(name.utf8.count == 12)
        #expect(name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber) })
        #expect(Host.randomName(40) != Host.randomName(40))
        #expect(Host.randomName(-1).isEmpty)
        #expect(Host.processorCount >= 1)
        #expect(Host.bootID()?.utf8.count == 36)
        var system = utsname()
        uname(&system)
        let machine = withUnsafeBytes(of: system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        #expect(Host.architecture == machine)
        #expect(Host.effectiveUserID == geteuid())
        #expect(Host.environment("no such variable") == nil)
        #expect(abs(Host.currentTime().seconds - Int64(time(nil))) <= 1)
        let before = Host.monotonicNanoseconds()
        Host.sleep(milliseconds: 2)
        #expect(Host.monotonicNanoseconds() - before >= 2_000_000)
    }
}
