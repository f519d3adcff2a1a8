import ComposefsBytes
import Testing

@testable import ComposefsBoot

@Suite struct BootPatternTests {
    @Test(
        arguments: [
            ("/usr/bin", "/usr/bin", .nothing), (#"/usr/lib\.so\.6"#, "/usr/lib.so.6", .nothing), ("/a(/.*)?", "/a", .optionalSubtree),
            ("/a/.*", "/a/", .anything), ("/ab?", "/a", .pattern), ("/ab+c", "/a", .pattern), ("/ab{2}", "/a", .pattern),
            ("/a[bc]", "/a", .pattern),
            ("/a(b|c)", "/a", .pattern), ("/a.c", "/a", .pattern), (#"/a\d"#, "/a", .pattern), ("/a[(]b", "/a", .pattern),
            // These have no fixed prefix, or one that is too short to be useful.
            ("/a|/b", "", .pattern), ("/a)(b", "", .pattern), ("/a(?i)b", "", .pattern), ("/a(?#c)*", "", .pattern),
            (#"/a\E*"#, "", .pattern),
            (#"/a\Qb|c\E"#, "", .pattern), ("/a[[:alpha:]]", "", .pattern), ("*", "", .pattern), ("/a[", "", .pattern),
            ("/a(", "", .pattern),
            ("^/a", "", .pattern),
        ] as [(String, String, PatternShape.Rest)])
    func shapes(_ pattern: String, _ stem: String, _ rest: PatternShape.Rest) {
        let shape = PatternShape(Array(pattern.utf8)[...])
        #expect(ByteString(shape.stem) == ByteString(stem))
        #expect(shape.rest == rest)
    }

    /// The index gives the same results as trying every pattern, last first.
    @Test func indexChangesNothing() throws {
        let patterns = [
            ".*", "/", "/.*", "/a", "/a(/.*)?", "/a/.*", "/ab?", "/a/b+", "/a|/b", "/a/b|/b/a", "/(a|b)/a", "/[^/]+/b", #"/a\.b"#, "/a.b",
            ".*/b",
            "/a/b{2}", "/a/b{0}", "(/a)?/b", "/a(?!/b).*", #"/(a)/\1"#, #"/a\E*"#, "/a(?#x)*", "/a/b$", "^/b/a", "/a)|(/b", "(/.*)?",
            "/A(?i)",
            "(?i)/A", "/a/b.*/", "(?:/a/)?b", "/b(*ACCEPT)x", "/a[/]b", "/a[]/]b", #"/a\x2fb"#, #"/\Qa.b\E"#, "/b/", "/b/(.*/)?a", "", "()",
        ]
        var paths: [[UInt8]] = [[], [slash]]
        func grow(_ prefix: String, _ depth: Int) {
            paths.append(Array(prefix.utf8))
            if depth == 0 { return }
            for chunk in ["/", "a", "b", "A", ".", "\n"] { grow(prefix + chunk, depth - 1) }
        }
        grow("/", 4)
        let types: [(String, UInt8)] = [("", 0), ("--", UInt8(ascii: "-")), ("-d", UInt8(ascii: "d"))]
        for (index, pattern) in patterns.enumerated() {
            for (flag, code) in types {
                // Blank patterns cannot be written in a file.
                if pattern.isEmpty { continue }
                let later = patterns[(index * 7 + 3) % (patterns.count - 2)]
                var contexts = FileContexts()
                try contexts.add(Array("\(pattern) \(flag) first\n\(later) second\n".utf8), path: "f")
                contexts.makeIndex()
                let plain = PatternSet()
                let end = code == 0 ? "." : String(UnicodeScalar(code))
                let first = try plain.add(Array("^(\(pattern))\(end)$".utf8))
                let second = try plain.add(Array("^(\(later)).$".utf8))
                for path in paths {
                    for type in "-d".utf8 {
                        let subject = path + [type]
                        let expected: ByteString? =
                            if try plain.matches(second, subject) { "second" } else if try plain.matches(first, subject) { "first" } else {
                                nil
                            }
                        let number = try contexts.label(of: path, type: type, contexts.scope(of: path))
                        let actual = number == FileContexts.noLabel ? nil : contexts.labels[Int(number)]
                        if actual != expected {
                            Issue.record("\(pattern) \(flag), \(later): \(ByteString(path)): \(String(describing: actual))")
                        }
                    }
                }
            }
        }
    }
}
