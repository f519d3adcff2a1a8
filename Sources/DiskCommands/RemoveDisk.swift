import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct RemoveDisk: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { .writing() }

    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove disks of an image from the repository. The next gc frees their space.",
        discussion: """
            A machine that has a file of the disk open keeps it until it ends.

            Example: cfsoci disk rm alpine --kind single
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Option(help: ArgumentHelp("Only disks of this kind.", valueName: "layered|fsmeta|vmdk|single|flat"))
    var kind: DiskKind?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights)
        let digest = try store.images.resolve(image).manifestDigest
        let prefix = kind.map { ByteString($0.rawValue + "-") } ?? ""
        let removed = try ImageDisks(store.images).remove(of: digest) { $0.hasPrefix(prefix) }
        guard !removed.isEmpty else {
            throw CommandError(
                "\(Output.printable(image)) has no \(kind.map { "disk of kind \($0.rawValue)" } ?? "disks") in the repository",
                code: .noSuchDisk)
        }
        try RemovedDisks(image: digest, keys: removed).show(asJSON: json)
    }
}

private struct RemovedDisks: CommandReport {
    var image: ContentDigest
    var keys: [ByteString]

    var lines: [String] { keys.map { "Removed disk \(Output.printable($0))" } }

    var json: JSONValue {
        ["manifestDigest": .string(image.description), "removed": .array(keys.map { .string($0.jsonText) })]
    }
}
