import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Tag: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tag", abstract: "Add a name to an image.",
        discussion: """
            An index that has the image's name gets the new name, too. The new name of an image that create-image made is below images/refs, like \
            its first one.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The new name; it moves to this image if another one has it.")
    var name: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let images = try global.openStore(Self.rights).images
        do {
            let (digest, index) = try images.tag(image, as: name)
            try Tagged(manifestDigest: digest, indexDigest: index, imageID: nil, name: name).show(asJSON: json)
        } catch let error as ImageStoreError {
            guard case .noSuchImage(let missing) = error, missing == image, let found = try images.namedImage(image) else { throw error }
            try images.name(found.imageID, as: name)
            try Tagged(manifestDigest: nil, indexDigest: nil, imageID: found.imageID, name: name).show(asJSON: json)
        }
    }
}

private struct Tagged: CommandReport {
    /// Nil for an image without a manifest.
    var manifestDigest: ContentDigest?
    var indexDigest: ContentDigest?
    var imageID: ObjectID?
    var name: ByteString

    var lines: [String] {
        [manifestDigest?.description ?? imageID?.hex, indexDigest?.description].compactMap { $0 }.map {
            "Tagged \($0) as \(Output.printable(name))"
        }
    }

    var json: JSONValue {
        ["manifestDigest": .text(manifestDigest), "indexDigest": .text(indexDigest), "name": .string(name.jsonText)]
    }
}
