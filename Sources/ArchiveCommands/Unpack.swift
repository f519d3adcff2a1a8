package import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

package struct Unpack: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "unpack", abstract: "Write the files of an image into a directory.",
        discussion: """
            The directory must be missing or empty. Files have the owners, modes, times, extended attributes, hard links and holes of the image, \
            and devices are made; the directory itself gets those of the image's root. Contents are verified, and share their blocks with the \
            repository if the file system can (XFS, btrfs). If the command fails, what it wrote is removed; until it ends, only the user of the \
            command can enter the directory.

            The directory is a copy: changes of it do not concern the repository. To look at an image, `mount` needs no copy.

            Example: cfsoci unpack alpine ./rootfs
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The directory.", completion: .directory)
    var directory: ByteString

    @OptionGroup var ownership: OwnershipOptions

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        let store = try openStore(global, for: Self.rights, writing: [directory])
        let report = try withExtractionHints {
            try store.images.fileTree(of: image).unpack(into: directory, ownership.options)
        }
        try UnpackedFiles(path: directory, report: report).show(asJSON: json)
    }
}
