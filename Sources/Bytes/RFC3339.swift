// RFC 3339 timestamps, as text of configs and JSON documents.

/// Converts between timestamps and RFC 3339 text.
package enum RFC3339 {
    /// 0000-01-01T00:00:00Z and the last second of 9999, the years that four digits can express.
    private static let range: ClosedRange<Int64> = -62_167_219_200...253_402_300_799

    /// The time in UTC: `2026-11-21T04:33:49Z`, with a fraction if there are nanoseconds. Years outside 0…9999 are clamped.
    package static func text(_ seconds: Int64, nanoseconds: UInt32 = 0) -> String {
        let clamped = min(max(seconds, range.lowerBound), range.upperBound)
        var day = clamped / 86400
        var second = clamped % 86400
        if second < 0 {
            second += 86400
            day -= 1
        }
        let date = civil(day)
        var text = digits(date.year, 4) + "-" + digits(date.month, 2) + "-" + digits(date.day, 2) + "T"
        text += digits(second / 3600, 2) + ":" + digits(second / 60 % 60, 2) + ":" + digits(second % 60, 2)
        if nanoseconds > 0, nanoseconds < 1_000_000_000 {
            var fraction = digits(Int64(nanoseconds), 9)
            while fraction.last == "0" { fraction.removeLast() }
            text += "." + fraction
        }
        return text + "Z"
    }

    /// Reads `YYYY-MM-DDTHH:MM:SS[.FRACTION](Z|±HH:MM)`; nil for anything else. Letters may be lower case, and a space may stand for `T`. A
    /// leap second counts as the first second of the next minute. Digits after nanoseconds are dropped.
    package static func parse(_ text: String) -> (seconds: Int64, nanoseconds: UInt32)? {
        var rest = Array(text.utf8)[...]
        func number(_ count: Int) -> Int64? {
            guard rest.count >= count else { return nil }
            var value: Int64 = 0
            for _ in 0..<count {
                guard let byte = rest.popFirst(), (0x30...0x39).contains(byte) else { return nil }
                value = value * 10 + Int64(byte - 0x30)
            }
            return value
        }
        func skip(_ bytes: [UInt8]) -> Bool { rest.popFirst().map { bytes.contains($0) } ?? false }
        let colon = [UInt8(ascii: ":")]
        let dash = [UInt8(ascii: "-")]
        guard let year = number(4), skip(dash), let month = number(2), skip(dash), let day = number(2),
            skip(Array("Tt ".utf8)), let hour = number(2), skip(colon), let minute = number(2), skip(colon), let second = number(2),
            (1...12).contains(month), (1...length(of: month, year)).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        var nanoseconds: UInt32 = 0
        if rest.first == UInt8(ascii: ".") {
            rest = rest.dropFirst()
            var scale: UInt32 = 100_000_000
            guard let first = rest.first, (0x30...0x39).contains(first) else { return nil }
            while let byte = rest.first, (0x30...0x39).contains(byte) {
                nanoseconds += UInt32(byte - 0x30) * scale
                scale /= 10
                rest = rest.dropFirst()
            }
        }
        guard let zone = rest.popFirst() else { return nil }
        var offset: Int64 = 0
        switch zone {
        case UInt8(ascii: "Z"), UInt8(ascii: "z"): break
        case UInt8(ascii: "+"), UInt8(ascii: "-"):
            guard let hours = number(2), skip(colon), let minutes = number(2), hours < 24, minutes < 60 else { return nil }
            offset = (hours * 60 + minutes) * 60 * (zone == UInt8(ascii: "+") ? 1 : -1)
        default: return nil
        }
        guard rest.isEmpty else { return nil }
        return (days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset, nanoseconds)
    }

    // MARK: The calendar

    // Days are counted from 0000-03-01, so that the leap day is the last day of a year. 146097 days are 400 years; 719468 days later is
    // 1970-01-01.

    private static func civil(_ day: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = day + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
    }

    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func length(of month: Int64, _ year: Int64) -> Int64 {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    private static func digits(_ number: Int64, _ width: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
    }
}
