import Glibc
import LinuxSystem
import Testing

@Suite struct MemoryTests {
    /// Without the setting glibc keeps blocks of a size that has been freed once.
    @Test func freedMemoryGoesBack() throws {
        let (large, small) = (8 << 20, 1 << 20)
        free(malloc(large))
        Host.returnsFreedMemory(ofAtLeast: 256 << 10)
        // Another thread may map something in the very place: hardly each time.
        let wentBack = try (0..<50).contains { _ in
            let block = try #require(malloc(small))
            memset(block, 1, small)
            let page = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: block) & ~4095) + 4096)
            free(block)
            var residency: UInt8 = 0
            return mincore(page, 4096, &residency) == -1 && errno == ENOMEM
        }
        #expect(wentBack)
    }
}
