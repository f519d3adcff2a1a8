import ComposefsBytes
import ComposefsImageStore
import Testing

struct GlobPatternTests {
    @Test(
        arguments: [
            ("*", ["", "a", "a/b:c"], []), ("a*", ["a", "ab", "a/b"], ["", "ba"]), ("*b", ["b", "ab", "a/bb"], ["ba"]),
            ("a?c", ["abc", "a/c"], ["ac", "abbc"]), ("a*b*c", ["abc", "axxbyyc", "abcbc"], ["acb", "ab"]),
            ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
            ("[!a-c]x", ["dx"], ["ax"]), ("[^ab]", ["c"], ["a"]), ("[]a]", ["]", "a"], ["b"]), ("[a", ["[a"], ["a"]),
            ("\\*", ["*"], ["a", "\\*"]),
            ("[a-]", ["a", "-"], ["b"]), ("[c-a]", ["b"], ["d"]), ("a\\", ["a\\"], ["a"]), ("", [""], ["a"]), ("**a", ["a", "xa"], ["ax"]),
            ("[\\]]", ["]"], ["\\"]),
        ] as [(String, [String], [String])])
    func matches(_ pattern: String, _ good: [String], _ bad: [String]) {
        let pattern = GlobPattern(ByteString(pattern))
        for name in good { #expect(pattern.matches(ByteString(name)), "\(name)") }
        for name in bad { #expect(!pattern.matches(ByteString(name)), "\(name)") }
    }

    /// Names have any bytes.
    @Test func bytes() {
        #expect(GlobPattern(ByteString([0xff, UInt8(ascii: "*")])).matches(ByteString([0xff, 0xfe])))
        #expect(GlobPattern("?").matches(ByteString([0xff])) && !GlobPattern("?").matches(ByteString("ü")))
    }

    /// Patterns that need exponential time in a matcher that tries everything.
    @Test func manyStars() {
        let pattern = GlobPattern(ByteString(String(repeating: "a*", count: 60) + "b"))
        #expect(!pattern.matches(ByteString(String(repeating: "a", count: 250))))
    }
}

struct ImageFilterTests {
    @Test func parses() throws {
        for key in ImageFilter.Key.allCases {
            let value: ByteString = key == .dangling || key == .inUse ? "true" : "a=b"
            #expect(try ImageFilter(parsing: ByteString(key.rawValue) + "=" + value) == ImageFilter(key, value))
        }
    }

    @Test func refuses() {
        #expect(throws: ImageFilterError.unknownKey("size")) { try ImageFilter(parsing: "size=1") }
        #expect(throws: ImageFilterError.unknownKey("")) { try ImageFilter(parsing: "=x") }
        #expect(throws: ImageFilterError.unknownKey("label!")) { try ImageFilter(parsing: "label!=x") }
        #expect(throws: ImageFilterError.noValue(.label)) { try ImageFilter(parsing: "label") }
        #expect(throws: ImageFilterError.noValue(.label)) { try ImageFilter(parsing: "label=") }
        #expect(throws: ImageFilterError.notBoolean(.dangling, "maybe")) { try ImageFilter(parsing: "dangling=maybe") }
        let text = ImageFilterError.unknownKey("size").description
        for key in ["reference", "name", "before", "since", "label", "dangling", "in-use", "arch", "os"] { #expect(text.contains(key)) }
    }
}

struct ImageRecordTests {
    @Test(arguments: [
        ("docker.io/library/alpine:3.20", "docker.io/library/alpine", "3.20"), ("localhost:5000/app", "localhost:5000/app", ""),
        ("localhost:5000/app:1@sha256:ab", "localhost:5000/app", "1"), ("plain", "plain", ""), (":x", ":x", ""), ("a:b:c", "a:b", "c"),
    ])
    func names(_ name: String, _ repository: String, _ tag: String) {
        let record = ImageRecord(kind: .tag, name: ByteString(name))
        #expect(record.repositoryName == ByteString(repository) && record.tagName == ByteString(tag))
    }
}
