import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootPin: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .changingBoot }

    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Keep a deployment: `cfsoci boot remove` refuses it then.",
        discussion: """
            Every deployment keeps its image, pinned or not.

            Example: cfsoci boot pin 3f2a91c07b6d
            """)

    @Argument(help: "The deployment: its identifier or the beginning of it, or the name of its image.", completion: .imageName)
    var deployment: ByteString

    @Flag(help: "Do not keep it any more.")
    var undo = false

    @OptionGroup var sysroot: SysrootOption

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let global = try sysroot.applied(to: global)
        let store = try global.openStore(.changingBoot) { try SysrootOption.allowState(of: global, writes: true, &$0) }
        let deployments = try Deployments(beside: store.repository, sysroot: sysroot.sysroot)
        let id = try deployments.find(deployment, []).id
        try deployments.setPinned(!undo, id)
        try PinReport(id: id, isPinned: !undo).show(asJSON: json)
    }
}

private struct PinReport: CommandReport {
    var id: ObjectID
    var isPinned: Bool

    var lines: [String] { ["\(isPinned ? "Pinned" : "Unpinned") \(id.hex)"] }

    var json: JSONValue { ["imageId": .string(id.hex), "isPinned": .bool(isPinned)] }
}
