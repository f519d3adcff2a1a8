import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct UpperDisk: ParsableCommand, ConfinedCommand {
    /// Parses nothing of others.
    static var rights: CommandRights? { nil }

    static let configuration = CommandConfiguration(
        commandName: "upper", abstract: "Make an empty ext4 disk with the directories of an overlay; print its path and size.",
        discussion: """
            The file is sparse, and its file system has the empty directories /upper and /work and a journal. It can grow: offline with \
            `cfsoci disk grow`, and online with resize2fs in the machine, after its disk has been enlarged. An existing file is never \
            replaced.

            Example: cfsoci disk upper state.ext4 --size 4G
            """)

    @Argument(help: "The file.", completion: .file())
    var file: ByteString

    @Option(help: ArgumentHelp("The size: bytes, or a number with K, M, G or T.", valueName: "size"))
    var size: ByteSize

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let made = try withDiskHints { try makeUpperDisk(size: size.bytes, at: file) }
        try SizedFile(path: file, size: made).show(asJSON: json)
    }
}
