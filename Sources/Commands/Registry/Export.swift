import ArgumentParser
import ComposefsArchiveCommands
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Write an image to an OCI layout or an archive of one, or its files to a tar archive.",
        discussion: """
            Like push, but to oci:DIR[:TAG] or oci-archive:FILE[:TAG]. A missing directory is made, and other images in it are kept; a file \
            is replaced; oci-archive:-[:TAG] is standard output. An image in Docker's format becomes an OCI image with another digest.

            With - the files of the merged image are written to standard output as one tar archive, as `docker export` does: with owners, times, \
            extended attributes and hard links.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(
        help: "The destination: oci:DIR[:TAG], oci-archive:FILE|-[:TAG], or - for a tar archive of the files.", completion: .destination)
    var destination: String

    @OptionGroup var pushing: PushingOptions

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard destination == "-" else { return }
        guard !pushing.json else { throw ValidationError("--json needs another destination: standard output is the archive") }
        guard pushing.compression == nil, pushing.jobs == nil, pushing.referrers == .keep, !pushing.allPlatforms else {
            throw ValidationError(
                "a tar archive of the files has no layers: --compression, --jobs, --referrers and --all-platforms do not apply")
        }
    }

    func run() throws {
        if destination == "-" { return try exportFiles(of: image, global) }
        if case .registry = try parseReference(destination) {
            throw CommandError(
                "\"\(destination)\" is not a file or directory; write oci:DIR[:TAG] or oci-archive:FILE[:TAG], or use push for a registry")
        }
        try send(image, to: destination, pushing, RegistryOptions(), global)
    }
}
