import ComposefsBytes
import Testing

@Suite struct Base64Tests {
    /// RFC 4648 §10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
    func rfcExamples(_ plain: String, _ encoded: String) {
        #expect(Base64.encode(Array(plain.utf8)) == encoded)
        #expect(Base64.decode(encoded.utf8) == Array(plain.utf8))
        #expect(Base64.decode(encoded.utf8.filter { $0 != UInt8(ascii: "=") }, lenient: true) == Array(plain.utf8))
    }

    @Test func everyDigit() {
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        #expect(Base64.decode(digits.utf8).map(Base64.encode) == digits)
    }

    @Test(arguments: ["Z", "Zg=", "Zg===", "Zm9v=", "Zm 9v", "Zm9v\t", "Zg==Zg==", "Zg=\n", "\n=", "=", "====", "Zm9-"])
    func refused(_ text: String) {
        #expect(Base64.decode(text.utf8) == nil)
        #expect(Base64.decode(text.utf8, lenient: true) == nil)
    }

    /// Line breaks of MIME (RFC 2045 §6.8) and of coreutils' base64, which other decoders skip too.
    @Test(arguments: ["Zm9v\n", "Zm9v\r\n", "\nZm\r\n9\rv", "Z\nm\n9\nv\n\n"])
    func lineEnds(_ text: String) {
        #expect(Base64.decode(text.utf8) == Array("foo".utf8))
        #expect(Base64.decode(text.utf8, lenient: true) == Array("foo".utf8))
        #expect(Base64.decode("Zg=\n=\n".utf8) == Array("f".utf8))
        #expect(Base64.decode("\n".utf8) == [])
    }

    @Test(arguments: ["Zg", "Zm8", "Zh==", "Zm9="])
    func refusedWhereStrict(_ text: String) {
        #expect(Base64.decode(text.utf8) == nil)
        #expect(Base64.decode(text.utf8, lenient: true) != nil)
    }
}
