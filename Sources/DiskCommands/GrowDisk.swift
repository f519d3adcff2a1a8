import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct GrowDisk: ParsableCommand, ConfinedCommand {
    static var rights: CommandRights? { confinement }
    private static let confinement = CommandRights(.none, writes: "file", capabilities: [.dacOverride, .dacReadSearch, .fileOwner])

    static let configuration = CommandConfiguration(
        commandName: "grow", abstract: "Make an ext4 disk and its file system larger; print its path and the size of the file system.",
        discussion: """
            The disk must not be mounted, and its machine must be off. One whose journal holds changes, because the machine did not stop \
            cleanly, is refused before anything is written: `e2fsck -p FILE` applies them first. Content is not touched.

            Exit status: 0 the file system has the size, or had it; 1 refused, and the file is as it was.

            Example: cfsoci disk grow state.ext4 --size 8G
            """)

    @Argument(help: "The file, or a block device that has the size already.", completion: .file())
    var file: ByteString

    @Option(help: ArgumentHelp("The new size: bytes, or a number with K, M, G or T.", valueName: "size"))
    var size: ByteSize

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        try global.confine(Self.confinement, repository: nil) { $0.writable = [file] }
        let made = try withDiskHints { try growDisk(to: size.bytes, at: file) }
        try SizedFile(path: file, size: made).show(asJSON: json)
    }
}
