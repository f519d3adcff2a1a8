/// The parser's help, shortened and completed: the options that every command has are named in one place instead of being explained by each
/// command, and examples follow.
package enum Help {
    private static let shown = ["--repo", "--user", "--system", "-q", "-v", "--progress"]

    /// The names of the options in `GlobalOptions`.
    private static let globals: Set<String> = [
        "--repo", "--user", "--system", "--require-verity", "--trust-owner", "--no-sandbox", "--quiet", "--verbose", "--progress",
        "--progress-fd",
    ]

    /// The help of a command.
    ///
    /// - Parameters:
    ///   - text: as the parser made it.
    ///   - examples: command lines.
    /// - Returns: the text as it is if it is not the help of a command below `cfsoci`.
    package static func text(_ text: String, examples: [String]) -> String {
        guard text.hasPrefix("OVERVIEW: ") || text.hasPrefix("USAGE: "), !text.contains("\nUSAGE: cfsoci [--repo"),
            !text.contains("USAGE: cfsoci <")
        else { return text }
        var lines: [Substring] = []
        var hidesEntry = false
        var hasGlobals = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("  -") {
                hidesEntry = globals.contains { name in
                    line.split(whereSeparator: { $0 == " " || $0 == "," }).prefix(2).contains { $0 == name }
                }
                hasGlobals = hasGlobals || hidesEntry
            } else if !line.hasPrefix("   ") {
                hidesEntry = false
            }
            if !hidesEntry { lines.append(line) }
        }
        while lines.last?.isEmpty == true { lines.removeLast() }
        if hasGlobals {
            lines += ["", "GLOBAL OPTIONS:", "  \(shown.joined(separator: ", ")), …; `cfsoci --help` explains them."]
        }
        if !examples.isEmpty { lines += ["", "EXAMPLES:"] + examples.map { "  \($0)" } }
        return lines.joined(separator: "\n")
    }
}
