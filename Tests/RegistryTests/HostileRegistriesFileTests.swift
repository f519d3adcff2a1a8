import ComposefsBytes
import Testing

@testable import ComposefsRegistry

/// Damaged and hostile registries.conf files.
@Suite struct HostileRegistriesFileTests {
    /// All of TOML, so that each of its constructs is cut and flipped somewhere.
    private let everything = """
        # comment
        unqualified-search-registries = ["a.example", 'b.example',
          "c.example" ] # end
        short-name-mode = \"\"\"permissive\"\"\"
        number = [ 1_000, 0xff, -3, 1.5e3, inf, true, 1979-05-27T07:32:00Z, 07:32:00 ]
        text = "\\u00e9\\n\\t\\"" # escapes
        "quoted.key" = { inner = { deeper = [ { } ] } }
        a.b.c = 1
        [aliases]
        fedora = "registry.example/fedora"
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "m.example:5000/x"
        """

    @Test func cutAndFlippedFiles() {
        let bytes = Array(everything.utf8)
        #expect((try? RegistriesFile("f", bytes)) != nil)
        for count in bytes.indices { _ = try? RegistriesFile("f", Array(bytes[..<count])) }
        for index in bytes.indices {
            for mask: UInt8 in [0x01, 0x02, 0x20, 0x80, 0xff] {
                var changed = bytes
                changed[index] ^= mask
                do { _ = try RegistriesFile("f", changed) } catch { #expect(error.kind == .configuration) }
            }
        }
    }

    @Test(arguments: [
        String(repeating: "[", count: 100_000), "x = " + String(repeating: "[", count: 100_000),
        "x = " + String(repeating: "{a=", count: 100_000), "[" + String(repeating: "a.", count: 100_000) + "a]",
        String(repeating: "a.", count: 100_000) + "a = 1", String(repeating: "\"a\".", count: 100_000) + "a = 1",
        String(repeating: "a . ", count: 100_000) + "a = 1", "x = " + String(repeating: "[[1],", count: 100_000),
    ])
    func deepNestingIsRefused(text: String) {
        #expect(registryError { _ = try RegistriesFile("f", Array(text.utf8)) }?.kind == .configuration)
    }
}
