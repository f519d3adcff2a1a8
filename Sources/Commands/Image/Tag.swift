import ArgumentParser
import ComposefsOCI

struct Tag: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Give an image a further name.")

    @Argument(help: "The image.")
    var image: ByteString

    @Argument(help: "The new name; it moves here if another image has it.")
    var name: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let images = try global.openStore().images
        let digest = try images.resolve(image).manifestDigest
        try images.tag(digest, as: name)
        if json { return try Output.print(["manifestDigest": .string(digest.description), "name": .string(name.jsonText)]) }
        try Output.print("Tagged \(digest) as \(Output.printable(name))")
    }
}
