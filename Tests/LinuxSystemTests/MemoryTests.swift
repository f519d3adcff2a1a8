import ComposefsLinuxSystem
import Glibc
import Testing

@Suite struct MemoryTests {
    /// Runs in a new process: in this one, malloc would first reuse blocks that other tests have freed.
    @Test func freedMemoryGoesBack() async {
        await #expect(processExitsWith: .success) {
            let (large, small) = (8 << 20, 1 << 20)
            // Without the setting, glibc keeps blocks of a size that has been freed once.
            free(malloc(large))
            Host.returnsFreedMemory(ofAtLeast: 256 << 10)
            guard let block = malloc(small) else { exit(2) }
            memset(block, 1, small)
            let page = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: block) & ~4095) + 4096)
            free(block)
            var residency: UInt8 = 0
            exit(mincore(page, 4096, &residency) == -1 && errno == ENOMEM ? 0 : 1)
        }
    }
}
