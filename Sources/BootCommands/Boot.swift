// BootCommands: the subcommands of `cfsoci boot`, one file for each.
public import ArgumentParser

/// `cfsoci boot`.
public struct Boot: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "boot", abstract: "Prepare images for booting.",
        subcommands: [
            BootImageCommand.self, BootArgument.self, BootEntries.self, BootPrepare.self, BootSealKernel.self, BootList.self,
            BootStatusCommand.self,
            BootRollback.self, BootPin.self, BootRemove.self, BootGarbage.self,
        ])

    public init() {}
}
