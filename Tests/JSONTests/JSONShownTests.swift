import ComposefsJSON
import Testing

/// JSON that may reach a terminal.
@Suite struct JSONShownTests {
    private func text(_ value: JSONValue) -> String { String(decoding: value.serialized(shown: true), as: UTF8.self) }

    @Test(arguments: [
        ("\u{7f}", #""\u007f""#), ("\u{80}\u{9b}31m\u{9f}", #""\u0080\u009b31m\u009f""#), ("a\u{200e}\u{200f}b", #""a\u200e\u200fb""#),
        ("\u{202a}\u{202e}", #""\u202a\u202e""#), ("\u{2066}\u{2069}\u{61c}", #""\u2066\u2069\u061c""#),
        ("\u{2028}\u{2029}", #""\u2028\u2029""#), ("\u{1b}\"\\\n\u{9c}", #""\u001b\"\\\n\u009c""#),
        ("ä€😀\u{a0}\u{2065}\u{206a}", "\"ä€😀\u{a0}\u{2065}\u{206a}\""),
    ])
    func whatActsIsEscaped(_ string: String, _ expected: String) throws {
        #expect(text(.string(string)) == expected)
        #expect(text(.object(JSONObject([(key: string, value: 1)]))) == "{\(expected):1}")
        // It is the same document.
        #expect(try JSONValue.parse(Array(expected.utf8)) == .string(string))
    }

    @Test func otherOutputStays() {
        #expect(String(decoding: JSONValue.string("\u{9b}\u{202e}").compactBytes, as: UTF8.self) == "\"\u{9b}\u{202e}\"")
    }
}
