import ComposefsBytes
import Testing

@testable import ComposefsHTTPClient

@Suite struct PartsTests {
    @Test func contentRanges() {
        #expect(ContentRange("bytes 0-499/1234").map { [$0.first, $0.last, $0.total ?? 0] } == [0, 499, 1234])
        #expect(ContentRange("bytes 42-42/*")?.total == nil)
        #expect(ContentRange("Bytes 42-1233/1234")?.first == 42)
        for wrong in [
            "", "bytes", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "items 0-1/2", "bytes 0-1", "bytes -1/2", "bytes 0-1/2/3",
            "bytes 0-99999999999999999999/*",
        ] {
            #expect(ContentRange(wrong) == nil, "\(wrong)")
        }
    }

    @Test func urls() throws {
        let base = try #require(HTTPURL("https://Registry.Example:5000/v2/a/blobs/x?sig=secret"))
        #expect(base.host == "registry.example")
        #expect(base.authority == "registry.example:5000")
        #expect(base.display == "https://registry.example:5000/v2/a/blobs/x")
        let sibling = try #require(base.resolving("/other?token=1"))
        #expect(sibling.text == "https://Registry.Example:5000/other?token=1")
        #expect(sibling.hasSameOrigin(as: base))
        #expect(base.resolving("https://registry.example/x")?.hasSameOrigin(as: base) == false)
        #expect(base.resolving("http://registry.example:5000/x")?.hasSameOrigin(as: base) == false)
        #expect(base.resolving("//elsewhere.example/x")?.host == "elsewhere.example")
        #expect(HTTPURL("https://example/")?.hasSameOrigin(as: try #require(HTTPURL("https://example:443/x"))) == true)
        for wrong in [
            "ftp://example/", "https://user:pass@example/", "https://", "/v2/", "https://exa mple/", "file:///etc/passwd",
            "https://a/\r\nX: y",
        ] {
            #expect(HTTPURL(wrong) == nil, "\(wrong)")
        }
    }

    @Test func loopbackHosts() {
        for host in ["localhost", "127.0.0.1", "127.255.0.9", "[::1]"] {
            #expect(HTTPURL("http://\(host):5000/")?.isLoopback == true, "\(host)")
        }
        for host in ["localhost.example", "127.example", "128.0.0.1", "[::2]", "example"] {
            #expect(HTTPURL("http://\(host)/")?.isLoopback == false, "\(host)")
        }
    }

    @Test func retryAfter() {
        var head = ResponseHead(status: 429)
        #expect(head.retryAfter == nil)
        head.fields = [("retry-after", "120")]
        #expect(head.retryAfter == .seconds(120))
        head.fields = [("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), ("date", "Fri, 31 Dec 1999 23:59:29 GMT")]
        #expect(head.retryAfter == .seconds(30))
        head.fields = [("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]
        #expect(head.retryAfter == .zero)
        for wrong in ["soon", "-1", "", "99999999999999999999"] {
            head.fields = [("retry-after", wrong)]
            #expect(head.retryAfter == nil, "\(wrong)")
        }
    }

    @Test func ring() {
        var ring = ByteRing(capacity: 10)
        var expected: [UInt8] = []
        var seen: [UInt8] = []
        var next: UInt8 = 0
        // All combinations of fill and drain sizes pass the wrap.
        for step in 0..<200 {
            let bytes = (0..<UInt8(step % 7)).map { next &+ $0 }
            if bytes.withUnsafeBytes({ ring.write($0) }) {
                expected += bytes
                next &+= UInt8(bytes.count)
            } else {
                #expect(ring.free < bytes.count)
            }
            var out = [UInt8](repeating: 0, count: step % 5)
            let count = out.withUnsafeMutableBytes { ring.read(into: $0) }
            seen += out[..<count]
        }
        var rest = [UInt8](repeating: 0, count: 10)
        let count = rest.withUnsafeMutableBytes { ring.read(into: $0) }
        #expect(seen + rest[..<count] == expected)
        #expect(ring.count == 0)
        let all = [UInt8](0..<11)
        #expect(!all.withUnsafeBytes { ring.write($0) })
        #expect(all[..<10].withUnsafeBytes { ring.write($0) })
        #expect(ring.free == 0)
    }

    @Test func messagesAreOneCleanLine() {
        #expect(printable("a\r\n\u{1b}[31mb\u{202e}c\u{7f}d") == "a [31mb c d")
        #expect(printable(String(repeating: "x", count: 300), limit: 5) == "xxxxx…")
        #expect(printable("größer") == "größer")
        #expect(percentEncoded("repository:a/b:pull user+ü") == "repository%3Aa%2Fb%3Apull%20user%2B%C3%BC")
    }
}
