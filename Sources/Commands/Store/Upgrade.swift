import ArgumentParser
import ComposefsOCI

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring an old repository to the current form: meta.json, and the EROFS images of its default format.")

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let report = try global.openStore(upgradeOldFormat: true, signer: signing.signer()).images.upgrade()
        if json {
            return try Output.print([
                "upgraded": .integer(Int64(report.upgraded)), "current": .integer(Int64(report.alreadyCurrent)),
                "artifacts": .integer(Int64(report.artifacts)),
            ])
        }
        try Output.print("upgraded  \(report.upgraded)")
        try Output.print("current   \(report.alreadyCurrent)")
        try Output.print("artifacts \(report.artifacts)")
    }
}
