/// A span of time as retention takes it: numbers with units, such as `30m`, `12h`, `7d`, `4w` or `1d12h`.
package enum Age {
    /// What is said about text that is no age.
    package static let form = "a number with s, m, h, d or w, such as 30m, 12h, 7d or 4w"

    private static let units: [(letter: UInt8, seconds: Int64)] = [
        (UInt8(ascii: "s"), 1), (UInt8(ascii: "m"), 60), (UInt8(ascii: "h"), 3600), (UInt8(ascii: "d"), 86400),
        (UInt8(ascii: "w"), 604_800),
    ]

    /// Nil for anything else, and for more seconds than a number can hold.
    package static func parse(_ text: String) -> Duration? {
        var total: Int64 = 0
        var number: Int64?
        for byte in text.utf8 {
            if (0x30...0x39).contains(byte) {
                let (tens, isOver) = (number ?? 0).multipliedReportingOverflow(by: 10)
                let (sum, isOverToo) = tens.addingReportingOverflow(Int64(byte - 0x30))
                guard !isOver, !isOverToo else { return nil }
                number = sum
            } else {
                guard let count = number, let unit = units.first(where: { $0.letter == byte }) else { return nil }
                let (seconds, isOver) = count.multipliedReportingOverflow(by: unit.seconds)
                let (sum, isOverToo) = total.addingReportingOverflow(seconds)
                guard !isOver, !isOverToo else { return nil }
                total = sum
                number = nil
            }
        }
        guard !text.isEmpty, number == nil else { return nil }
        return .seconds(total)
    }
}
