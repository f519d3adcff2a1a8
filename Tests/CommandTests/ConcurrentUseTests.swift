import Glibc
import Testing

/// Many processes use the same repositories at the same time.
@Suite(.serialized) struct ConcurrentUseTests {
    /// A short run of `tools/chaos`.
    @Test(.enabled(if: hasProgram("python3"), "needs python3"))
    func randomCommands() throws {
        let tools = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/tools"
        let seconds = getenv("CFSOCI_CHAOS_SECONDS").map { String(cString: $0) } ?? "20"
        let result = try launch(tools + "/chaos", [seconds], environment: ["CFSOCI=" + Cfsoci.binary])
        // The seed, to repeat the choices.
        print(result.lines.first ?? "nothing was printed")
        #expect(result.status == 0, "\(result.text)\(result.error)")
        #expect(result.lines.last?.hasPrefix("8 processes, ") == true && result.lines.last?.hasSuffix(", 0 failures") == true)
    }
}
