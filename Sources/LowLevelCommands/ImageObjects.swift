package import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

package struct ImageObjects: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "image-objects", abstract: "List the objects that an EROFS image's files need.")

    @Argument(help: "The EROFS image's identifier, or a name below images/refs.", completion: .imageName)
    var id: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    package init() {}

    package func run() throws {
        let repository = try global.openStore(Self.rights, readOnly: true).repository
        let image = try repository.image(id)
        try NeededObjects(image: image, objects: try repository.imageObjects(image)).show(asJSON: json)
    }
}

private struct NeededObjects: CommandReport {
    var image: ObjectID
    var objects: [ObjectID]

    var lines: [String] { objects.map(\.hex) }

    var json: JSONValue { ["imageId": .string(image.hex), "objects": .texts(objects.map(\.hex))] }
}
