import ArgumentParser
import ComposefsCommandSupport

/// The words of a command line that name a command: `pull`, or `referrers list`. The parser reports a wrong one as an unexpected argument; here
/// it gets an answer.
enum CommandWords {
    /// A command line that is wrong before its options are looked at.
    struct Fault: Error {
        var message: String
        var hint: String?
    }

    /// Names that other programs have for the same command, and that are accepted.
    private static func accepted(_ word: String) -> String {
        switch word {
        case "rmi": "rm"
        case "unmount": "umount"
        default: word
        }
    }

    /// Options of `cfsoci` itself that may stand before a command's name. Arrays: a set costs more to make than a few comparisons.
    private static let flags = ["--user", "--system", "--require-verity", "--trust-owner", "--no-sandbox", "--quiet", "--verbose"]
    private static let valued = ["--repo", "--progress", "--progress-fd"]

    /// A command line that names no unknown command.
    struct Checked {
        /// With the names that the parser knows.
        var arguments: [String]
        /// The command of `cfsoci` that is to run, which may have commands below it; nil if none was named, or its help is asked for.
        var command: (any ParsableCommand.Type)?
    }

    static func checked(_ arguments: [String]) throws(Fault) -> Checked {
        // A shell asks for completions: its words are not yet a command line.
        if arguments.first?.hasPrefix("---") == true { return Checked(arguments: arguments) }
        for argument in arguments.prefix(while: { $0 != "--" })
        where argument.hasPrefix("--") && argument.firstIndex(of: "=") == argument.indices.last {
            throw Fault(
                message: "\(argument) has no value", hint: "an empty value is written as an argument of its own: \(argument.dropLast()) ''")
        }
        var checked = Checked(arguments: arguments)
        var type: any ParsableCommand.Type = Cfsoci.self
        var path = "cfsoci"
        var isHelp = false
        for index in words(of: arguments) {
            let known = commands(of: type)
            if known.isEmpty { break }
            var word = arguments[index]
            if path == "cfsoci", word == "help", !isHelp {
                isHelp = true
                continue
            }
            if path == "cfsoci" { word = accepted(word) }
            guard let found = known.first(where: { names(of: $0).contains(word) }) else {
                // An argument of the command that needs no name, as in `disk IMAGE`.
                if type.configuration.defaultSubcommand != nil { break }
                let next = arguments.indices.contains(index + 1) ? arguments[index + 1] : nil
                throw Fault(message: "there is no command \"\(path) \(word)\"", hint: hint(for: word, next, known, path))
            }
            checked.arguments[index] = word
            if path == "cfsoci", !isHelp { checked.command = found }
            type = found
            path += " " + (names(of: found).first ?? word)
        }
        return checked
    }

    /// The indices of the arguments that are neither options nor their values, as long as the options are those of `cfsoci` itself.
    private static func words(of arguments: [String]) -> [Int] {
        var found: [Int] = []
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            if valued.contains(argument) {
                index += 1
            } else if argument.hasPrefix("-"), argument != "-" {
                let name = argument.split(separator: "=", maxSplits: 1).first.map(String.init) ?? argument
                let isGroup = !argument.hasPrefix("--") && argument.dropFirst().allSatisfy { "qv".contains($0) }
                guard flags.contains(argument) || valued.contains(name) || isGroup else { break }
            } else {
                found.append(index)
            }
            index += 1
        }
        return found
    }

    static func commands(of type: any ParsableCommand.Type) -> [any ParsableCommand.Type] {
        type.configuration.subcommands
    }

    /// Whether a command is another one, or below it.
    static func includes(_ type: any ParsableCommand.Type, _ other: any ParsableCommand.Type) -> Bool {
        type == other || commands(of: type).contains { includes($0, other) }
    }

    static func names(of type: any ParsableCommand.Type) -> [String] {
        [type.configuration.commandName ?? type._commandName] + type.configuration.aliases
    }

    // MARK: Suggestions

    /// What commands of other programs are called here.
    private static let elsewhere: [String: String] = [
        "add": "import-layer", "build": "create-image", "check": "fsck", "clean": "prune", "cleanup": "prune", "create": "init",
        "delete": "rm", "disk-usage": "df", "download": "pull", "fetch": "pull", "image ls": "images", "image list": "images",
        "image rm": "rm", "image remove": "rm", "image prune": "prune", "image pull": "pull", "image push": "push", "image tag": "tag",
        "image untag": "untag", "image inspect": "inspect", "image history": "history", "image diff": "diff", "image mount": "mount",
        "image unmount": "umount", "image umount": "umount", "image save": "save", "image load": "load", "image cp": "cp",
        "image": "images",
        "mounts": "mount", "oci pull": "pull", "oci images": "images", "oci": "pull", "remove": "rm",
        "repair": "fsck --repair", "show": "inspect", "status": "info", "system df": "df", "system info": "info",
        "system prune": "prune", "system check": "fsck", "system": "df", "verify": "fsck",
    ]

    private static func hint(for word: String, _ next: String?, _ known: [any ParsableCommand.Type], _ path: String) -> String? {
        if path == "cfsoci" {
            let pair = next.flatMap { elsewhere[word + " " + $0] }
            if let name = pair ?? elsewhere[word] { return "did you mean `cfsoci \(name)`?" }
            if ["run", "exec", "start", "stop", "ps"].contains(word) {
                return "cfsoci stores and mounts images; it runs no containers"
            }
        }
        let candidates = known.flatMap(names)
        let near = candidates.map { (name: $0, distance: distance(word, $0)) }.min { $0.distance < $1.distance }
        if let near, near.distance <= max(1, near.name.count / 3) { return "did you mean `\(path) \(near.name)`?" }
        let longer = candidates.filter { word.count > 1 && $0.hasPrefix(word) }
        if longer.count == 1 { return "did you mean `\(path) \(longer[0])`?" }
        return "`\(path) --help` lists the commands"
    }

    /// The number of characters to insert, remove, replace or swap with their neighbour (optimal string alignment).
    static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left.unicodeScalars.prefix(64)), Array(right.unicodeScalars.prefix(64)))
        var rows = [Array(0...right.count)]
        for row in 0..<left.count {
            var current = [row + 1]
            for column in 0..<right.count {
                let isEqual = left[row] == right[column]
                var best = min(rows[row][column + 1] + 1, current[column] + 1, rows[row][column] + (isEqual ? 0 : 1))
                if row > 0, column > 0, left[row] == right[column - 1], left[row - 1] == right[column] {
                    best = min(best, rows[row - 1][column - 1] + 1)
                }
                current.append(best)
            }
            rows.append(current)
        }
        return rows[left.count][right.count]
    }
}
