import ComposefsTestSupport
import Glibc
import Testing

/// Compares random layer stacks, pulled by the real command, with overlayfs. `tools/overlay-stacks` runs more of them.
@Suite struct OverlayStackTests {
    @Test func sameAsOverlayfs() throws {
        try requireMounting()
        let variable = { (name: String) in getenv(name).map { String(cString: $0) } }
        let count = variable("CFSOCI_OVERLAY_STACKS") ?? "40"
        let seed = variable("CFSOCI_OVERLAY_SEED").map { [$0] } ?? []
        let result = try launch("python3", [Fixtures.folder + "/overlay-stacks.py", Cfsoci.binary, count] + seed)
        // The seed, to reproduce a failure.
        print(result.lines.first ?? "nothing was printed")
        #expect(result.status == 0, "\(result.text)\(result.error)")
        #expect(result.lines.last?.hasPrefix("\(count) stacks, ") == true && result.lines.last?.hasSuffix(", 0 differences") == true)
    }
}
