/// Sizes for people: binary units, two decimals from 1 KiB on.
func humanBytes(_ count: UInt64) -> String { byteText(count, decimals: 2) }

/// Sizes that change while one looks: one decimal, ten characters at most.
func progressBytes(_ count: UInt64) -> String { byteText(count, decimals: 1) }

private let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]

/// Both in the unit that the first has, or would be rounded to: `0.5 / 3.0 MiB`. The unit is that of `unitOf`.
func byteText(_ count: UInt64, decimals: Int, unitOf: UInt64? = nil, withUnit: Bool = true) -> String {
    let scale = (0..<decimals).reduce(1.0) { scale, _ in scale * 10 }
    var unit = 0
    var measure = Double(unitOf ?? count)
    // What would be rounded up to 1024 has the next unit.
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
