package import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

package struct CreateImage: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "create-image", abstract: "Store the files of a directory and its EROFS image; print the image's identifier.",
        discussion: DirectoryWalk.help)

    @Argument(help: "The directory.", completion: .directory)
    var directory: ByteString

    @Argument(help: "A name below images/refs, which keeps the image.")
    var name: ByteString?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var tree: TreeOptions
    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        // No repository is made if the directory does not exist.
        _ = try FileDescriptor.open(directory, [.readOnly, .directory])
        let opened = try global.openOrCreateStore(.writing(), signer: signing.signer()) { $0.readable = [directory] }
        do {
            try create(in: opened.store.repository)
        } catch {
            opened.undo(keepsContent: false)
            throw error
        }
    }

    private func create(in repository: Repository) throws {
        try repository.beginPull()
        let walk = DirectoryWalk()
        var image = try repository.importDirectory(directory) { walk.found($0) }
        walk.tell(global)
        transformForContainer(&image, tree.xattrs.filtering)
        if tree.bootable { try transformForBoot(&image, contentsOf: directory) }
        var publication = Repository.Publication()
        let images = try ImageStore(repository).storeImages(of: image, &publication)
        guard let result = images[repository.erofsFormats.default] else {
            preconditionFailure("the default format is one of the repository's formats")
        }
        if let name { publication.imageReference(name, result) }
        try repository.publish(publication)
        try CreatedImage(id: result, name: name).show(asJSON: json)
    }
}

private struct CreatedImage: CommandReport {
    var id: ObjectID
    var name: ByteString?

    var lines: [String] { [id.hex] }

    var json: JSONValue { ["imageId": .string(id.hex), "name": .text(name?.jsonText)] }
}
