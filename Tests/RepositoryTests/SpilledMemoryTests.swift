import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Synchronization
import Testing

@Suite(.serialized) struct SpilledMemories {
    private static let megabyte = 1 << 20

    /// Four arrays of 24 MiB.
    private func fill(_ memory: any LargeMemory) -> [LargeArray<UInt64>] {
        var arrays = (0..<4).map { _ in LargeArray<UInt64>(in: memory) }
        for number in 0..<UInt64(3 * Self.megabyte) {
            for index in arrays.indices { arrays[index].append(number &* 0x9e37_79b9_7f4a_7c15 &+ UInt64(index)) }
        }
        return arrays
    }

    private func check(_ arrays: [LargeArray<UInt64>]) {
        var random = SplitMix(state: 1)
        for _ in 0..<20_000 {
            let (index, number) = (random.below(arrays.count), random.below(3 * Self.megabyte))
            #expect(arrays[index][number] == UInt64(number) &* 0x9e37_79b9_7f4a_7c15 &+ UInt64(index))
        }
    }

    private func residentBytes() throws -> Int {
        let text = String(decoding: try FileDescriptor.open("/proc/self/statm", .readOnly).readAll(limit: 4096), as: UTF8.self)
        return try #require(Int(text.split(separator: " ")[1])) * 4096
    }

    /// 96 MiB of arrays, of which at most 20 MiB are on the heap and 16 MiB of files in use. All files are removed.
    @Test func staysSmall() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let before = try residentBytes()
        var arrays = fill(repository.memory)
        #expect(arrays.contains { $0.isOutsideOfHeap })
        #expect(try residentBytes() - before < 56 * Self.megabyte)
        check(arrays)
        #expect(try residentBytes() - before < 56 * Self.megabyte)
        // A copy has pages of its own.
        let copy = arrays[0]
        arrays[0][77] = 1
        #expect(copy[77] == 77 &* 0x9e37_79b9_7f4a_7c15 && arrays[0][77] == 1)
        #expect(try residentBytes() - before < 56 * Self.megabyte)
        #expect(try scratch.listing().keys.allSatisfy { !$0.hasPrefix("objects/.tmp") })
    }

    /// A file that cannot be made or extended: the heap.
    @Test(arguments: [0, 3, 9]) func withoutSpace(count: Int) throws {
        final class Full: SystemCallObserver {
            let allowed: Int
            let calls = Atomic<Int>(0)
            init(_ allowed: Int) { self.allowed = allowed }
            func before(_ call: SystemCall) -> Errno? {
                guard call.kind == .allocate else { return nil }
                return calls.add(1, ordering: .relaxed).newValue <= allowed ? nil : .noSpace
            }
            func after(_ call: SystemCall, result: Int) {}
        }
        let scratch = try Scratch()
        let repository = try scratch.create()
        let full = Full(count)
        Recorder(forwarding: full).observe {
            let arrays = fill(repository.memory)
            // Each array that is in a file is moved when it grows.
            #expect((count + 1...count + 4).contains(full.calls.load(ordering: .relaxed)))
            check(arrays)
        }
        _ = try repository.check()
    }

    /// What cannot be written to has no files either, but where the output is there may be some.
    @Test func readOnly() throws {
        let scratch = try Scratch()
        _ = try scratch.create()
        let before = try scratch.listing()
        let arrays = fill(try scratch.open(OpenOptions(readOnly: true)).memory)
        #expect(!arrays.contains { $0.isOutsideOfHeap })
        check(arrays)
        let repository = try scratch.open(OpenOptions(readOnly: true))
        repository.noteOutput(scratch.path)
        let others = fill(repository.memory)
        #expect(others.contains { $0.isOutsideOfHeap })
        check(others)
        #expect(try scratch.listing() == before)
    }
}
