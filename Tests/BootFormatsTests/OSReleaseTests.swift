import ComposefsBytes
import Testing

@testable import ComposefsBootFormats

@Suite struct OSReleaseTests {
    @Test(
        "Quotes",
        arguments: [
            ("", ""), ("\"\"", ""), ("\"\"''\"\"", ""), ("\\\\", "\\\\"), ("\"closed\\\\\"", "closed\\"), ("\"\\\"\"", "\""),
            ("\"\\$5\"", "$5"), ("'\\$'", "\\$"), ("plain", "plain"), ("a'b'\"c\"", "abc"), ("'\"'", "\""),
            ("\"not closed", nil), ("\"\\\\", nil), ("\"\\", nil), ("'", nil), ("'\\''", nil),
        ] as [(String, String?)])
    func quotes(text: String, value: String?) {
        #expect(OSRelease.unquoted(text.utf8) == value.map { ByteString($0) })
    }

    @Test(
        "The label is a name and a version",
        arguments: [
            ("ID=pretty-os\nVERSION_ID=\"Rocky Racoon\"\nVERSION=42\nPRETTY_NAME='prettyOS'\n", "prettyOS Rocky Racoon"),
            ("ID=pretty-os\nVERSION_ID=\"Rocky Racoon\"\nPRETTY_NAME='prettyOS\n", "pretty-os Rocky Racoon"),
            ("ID=pretty-os\nVERSION=42\n", "pretty-os 42"),
            ("ID=pretty-os\n", "pretty-os"),
            ("NAME=N\nID=i\n", "N"),
            ("# ID=a\n  ID=b\nID=c", "c"),
            ("PRETTY_NAME=\nNAME=n", "n"),
            ("VERSION_ID=1\n", nil),
            ("\n=\nID\n", nil),
        ] as [(String, String?)])
    func label(text: String, label: String?) {
        #expect(OSRelease(parsing: text.utf8).label == label.map { ByteString($0) })
    }

    /// systemd's `systemd-analyze compare-versions` gives these results.
    @Test(
        "Versions",
        arguments: [
            ("11", "11", 0), ("systemd-123", "systemd-123", 0), ("bar-123", "foo-123", -1), ("123a", "123", 1), ("123.a", "123", 1),
            ("123.a", "123.b", -1), ("123a", "123.a", 1), ("11α", "11β", 0), ("A", "a", -1), ("", "0", -1), ("0.", "0", 1),
            ("0.0", "0", 1), ("0", "~", 1), ("", "~", 1), ("1_", "1", 0), ("_1", "1", 0), ("1_", "1.2", -1), ("1_2_3", "1.3.3", 1),
            ("1+", "1", 0), ("+1", "1", 0), ("1+", "1.2", -1), ("1+2+3", "1.3.3", 1), ("124", "123", 1), ("225.1", "2", 1),
            ("1.0.0~rc1", "1.0.0", -1), ("1.0.0^1", "1.0.0", 1), ("1.0.0^1", "1.0.0.1", -1), ("00123", "123", 0),
            ("123.4-3.1", "123.4-3", 1), ("1-2", "1.2", -1), ("6.9.0-arch1-1", "6.10.0-arch1-1", -1),
            ("99999999999999999999999", "100000000000000000000000", -1), ("a~", "a~", 0), ("a-~", "a-", -1),
        ])
    func versions(left: String, right: String, order: Int) {
        #expect(compareVersions(ByteString(left), ByteString(right)) == order)
        #expect(compareVersions(ByteString(right), ByteString(left)) == -order)
    }
}
