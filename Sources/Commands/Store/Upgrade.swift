import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade", abstract: "Upgrade an old repository: meta.json, and the EROFS images of its default format.")

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let result = try global.openStore(Self.rights, upgradeOldFormat: true, signer: signing.signer()).images.upgrade()
        if result.metadataWritten { global.note("meta.json was rewritten in the form that programs write; its meaning is the same") }
        try UpgradeReport(result: result).show(asJSON: json)
    }
}

private struct UpgradeReport: CommandReport {
    var result: ImageStore.UpgradeResult

    var lines: [String] {
        ["upgraded  \(result.upgraded)", "current   \(result.alreadyCurrent)", "artifacts \(result.artifacts)"]
    }

    var json: JSONValue {
        ["upgraded": .count(result.upgraded), "current": .count(result.alreadyCurrent), "artifacts": .count(result.artifacts)]
    }
}
