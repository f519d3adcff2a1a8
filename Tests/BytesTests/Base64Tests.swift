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

    @Test(arguments: ["Z", "Zg=", "Zg===", "Zm9v=", "Zm 9v", "Zm9v\n", "Zg==Zg==", "=", "====", "Zm9-"])
    func refused(_ text: String) {
        #expect(Base64.decode(text.utf8) == nil)
        #expect(Base64.decode(text.utf8, lenient: true) == nil)
    }

    @Test(arguments: ["Zg", "Zm8", "Zh==", "Zm9="])
    func refusedWhereStrict(_ text: String) {
        #expect(Base64.decode(text.utf8) == nil)
        #expect(Base64.decode(text.utf8, lenient: true) != nil)
    }
}
