import Testing

@testable import ComposefsBytes

/// Times against the output of `date --utc --date=@N +%FT%TZ`.
struct RFC3339Tests {
    @Test(
        arguments: [
            (0, 0, "1970-01-01T00:00:00Z"), (1_709_168_523, 500_000_000, "2024-02-29T01:02:03.5Z"), (-1, 0, "1969-12-31T23:59:59Z"),
            (951_782_399, 1, "2000-02-28T23:59:59.000000001Z"), (253_402_300_799, 0, "9999-12-31T23:59:59Z"),
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"), (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] as [(Int64, UInt32, String)])
    func bothWays(_ seconds: Int64, _ nanoseconds: UInt32, _ text: String) throws {
        #expect(RFC3339.text(seconds, nanoseconds: nanoseconds) == text)
        let time = try #require(RFC3339.parse(text))
        #expect(time.seconds == seconds && time.nanoseconds == nanoseconds)
    }

    @Test(
        arguments: [
            ("2024-02-29T02:02:03+01:00", 1_709_168_523, 0), ("2024-02-28t19:32:03.123456789123-05:30", 1_709_168_523, 123_456_789),
            ("2016-12-31T23:59:60Z", 1_483_228_800, 0), ("2024-02-29 01:02:03z", 1_709_168_523, 0),
        ] as [(String, Int64, UInt32)])
    func otherForms(_ text: String, _ seconds: Int64, _ nanoseconds: UInt32) throws {
        let time = try #require(RFC3339.parse(text))
        #expect(time.seconds == seconds && time.nanoseconds == nanoseconds)
    }

    @Test(arguments: [
        "", "x", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z",
        "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:61Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00Zx", "24-01-01T00:00:00Z", "2024-01-01", "2024-1-01T00:00:00Z",
        "１970-01-01T00:00:00Z",
    ])
    func noTimes(_ text: String) { #expect(RFC3339.parse(text) == nil) }
}
