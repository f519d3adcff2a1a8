/// Makes another program's or a file's text fit for one line of a terminal: replaces control characters by blanks and cuts after `limit` characters.
package func printable(_ text: String, limit: Int = 200) -> String {
    var out = ""
    var count = 0
    for scalar in text.unicodeScalars {
        guard count < limit else { return out + "…" }
        switch scalar.value {
        case 0x20...0x7e: out.unicodeScalars.append(scalar)
        // Neither C1 controls nor bidirectional marks: they could rewrite the line.
        case 0xa1...0x200a, 0x2010...0x2027, 0x2030...0x205f, 0x2070...0xd7ff: out.unicodeScalars.append(scalar)
        default: if out.last != " " { out += " " }
        }
        count += 1
    }
    return out
}
