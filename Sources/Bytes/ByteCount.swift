// The one place that turns a number of bytes into text for people.

/// A size in binary units, with two decimals from 1 KiB on.
package func humanBytes(_ count: UInt64) -> String { byteText(count, decimals: 2) }

/// A size that changes while it is displayed: one decimal, ten characters at most.
package func progressBytes(_ count: UInt64) -> String { byteText(count, decimals: 1) }

private let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]

/// A size in binary units.
///
/// - Parameters:
///   - decimals: digits after the point, 1 or more.
///   - unitOf: the size whose unit is used instead, so that two sizes have the same: `0.5 / 3.0 MiB`.
///   - withUnit: whether the unit follows.
package func byteText(_ count: UInt64, decimals: Int, unitOf: UInt64? = nil, withUnit: Bool = true) -> String {
    let scale = (0..<decimals).reduce(1.0) { scale, _ in scale * 10 }
    var unit = 0
    var measure = Double(unitOf ?? count)
    // A value that would be rounded up to 1024 takes the next unit.
    while measure >= (unit == 0 ? 1024 : 1024 - 0.5 / scale), unit + 1 < units.count {
        measure /= 1024
        unit += 1
    }
    let suffix = withUnit ? " " + units[unit] : ""
    guard unit > 0 else { return "\(count)" + suffix }
    var value = Double(count)
    for _ in 0..<unit { value /= 1024 }
    let rounded = Int((value * scale).rounded())
    let fraction = String(rounded % Int(scale))
    return "\(rounded / Int(scale))." + String(repeating: "0", count: decimals - fraction.utf8.count) + fraction + suffix
}
