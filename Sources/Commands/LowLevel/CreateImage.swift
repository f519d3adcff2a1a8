import ArgumentParser
import ComposefsLinuxSystem
import ComposefsOCI

struct CreateImage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-image", abstract: "Store a directory's files and its EROFS image; print the image's identifier.")

    @Argument(help: "The directory.")
    var directory: ByteString

    @Argument(help: "A name below images/refs, which keeps the image.")
    var name: ByteString?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var tree: TreeOptions
    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        // No repository is made for a directory that is not there.
        _ = try FileDescriptor.open(directory, [.readOnly, .directory])
        let repository = try global.openOrCreateStore(signer: signing.signer()).repository
        try repository.beginPull()
        var image = try repository.importDirectory(directory)
        transformForContainer(&image, tree.xattrs.filtering)
        if tree.bootable { try transformForBoot(&image, contentsOf: directory) }
        var publication = Repository.Publication()
        var result: ObjectID?
        for version in repository.erofsFormats.all {
            let id = try repository.storeImage(try writeErofs(image, version: version)).id
            publication.image(id)
            if version == repository.erofsFormats.default {
                result = id
                if let name { publication.imageReference(name, id) }
            }
        }
        try repository.publish(publication)
        guard let result else { return }
        if json {
            try Output.print(["imageId": .string(result.hex), "name": name.map { .string($0.jsonText) } ?? .null])
        } else {
            try Output.print(result.hex)
        }
    }
}
