import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsOCI

struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Write an image to an OCI layout or an archive of one.",
        discussion: """
            Like push, but to oci:DIR[:TAG] or oci-archive:FILE[:TAG]. A missing directory is made, and other images in it are kept; a file \
            is replaced. An image in Docker's format becomes an OCI image with another digest.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The destination: oci:DIR[:TAG] or oci-archive:FILE[:TAG].", completion: .destination)
    var destination: String

    @OptionGroup var pushing: PushingOptions

    @OptionGroup var global: GlobalOptions

    func run() throws {
        if case .registry = try parseReference(destination) {
            throw CommandError(
                "\"\(destination)\" is not a file or directory; write oci:DIR[:TAG] or oci-archive:FILE[:TAG], or use push for a registry")
        }
        try send(image, to: destination, pushing, RegistryOptions(), global)
    }
}
