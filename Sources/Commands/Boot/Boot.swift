import ArgumentParser

struct Boot: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prepare images for booting.", subcommands: [BootImageCommand.self, BootArgument.self])
}
