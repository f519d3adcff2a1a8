import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Glibc
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsTransfer

/// Makes one open(2) of the thread fail.
private final class OneOpenFails: SystemCallObserver {
    private let thread = pthread_self()
    private let index: Int
    private let count = Atomic<Int>(0)

    init(_ index: Int) { self.index = index }

    var wasReached: Bool { count.load(ordering: .relaxed) > index }

    func before(_ call: SystemCall) -> Errno? {
        guard pthread_self() == thread, call.kind == .open else { return nil }
        return count.add(1, ordering: .relaxed).oldValue == index ? .inputOutput : nil
    }

    func after(_ call: SystemCall, result: Int) {}
}

/// A device that cannot be read is what the check reports, and never a link or a blob that is missing or another.
@Suite struct FaultNamingTests {
    @Test func everyFindingNamesTheFault() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([ArraySource.Layer(.zeros("alpha", 1000)), ArraySource.Layer(.zeros("beta", 2000))])
        _ = try pullImage(from: source, into: store.repository)
        #expect(try store.faults().isEmpty)
        var index = 0
        var findings = 0
        while true {
            let observer = OneOpenFails(index)
            Kernel.observe(observer)
            defer { Kernel.observe(nil) }
            do {
                for fault in try store.faults() {
                    findings += 1
                    #expect(fault.contains("Input/output error"), "open \(index): \(fault)")
                }
            } catch {
                #expect("\(error)".contains("Input/output error"), "open \(index)")
            }
            guard observer.wasReached else { break }
            index += 1
        }
        #expect(index > 20 && findings > 5, "\(index) calls, \(findings) findings")
    }
}
