import ArgumentParser
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

struct ShowVersion: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Show the release, the commit that it was built from, and the libraries that it uses.",
        discussion: "The commit is known if tools/package or a similar script built the program. --version prints the release only.")

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws { try VersionReport().show(asJSON: json) }
}

private struct VersionReport: CommandReport {
    let libraries = LinkedLibraries.versions

    var lines: [String] {
        ["cfsoci      \(Version.text)", "commit      \(Version.commit ?? "unknown")"]
            + libraries.map { $0.name + String(repeating: " ", count: max(1, 12 - $0.name.count)) + ($0.version ?? "not found") }
    }

    var json: JSONValue {
        [
            "version": .string(Version.text), "commit": .text(Version.commit),
            "libraries": .object(JSONObject(libraries.map { (key: $0.name, value: .text($0.version)) })),
        ]
    }
}
