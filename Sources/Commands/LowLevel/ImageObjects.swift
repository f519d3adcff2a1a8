import ArgumentParser
import ComposefsOCI

struct ImageObjects: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image-objects", abstract: "List the objects that an EROFS image's files need.")

    @Argument(help: "The EROFS image's identifier, or a name below images/refs.")
    var id: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let repository = try global.openStore(readOnly: true).repository
        let image = try repository.image(id)
        let objects = try repository.imageObjects(image)
        if json { return try Output.print(["imageId": .string(image.hex), "objects": .array(objects.map { .string($0.hex) })]) }
        for object in objects { try Output.print(object.hex) }
    }
}
