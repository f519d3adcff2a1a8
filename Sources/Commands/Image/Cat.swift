import ArgumentParser
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Cat: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cat", abstract: "Print a file of an image, verified.")

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The file; symbolic links are followed inside the image.")
    var path: ByteString

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        do {
            try store.readFile(path, in: image) { try Output.write($0) }
        } catch ExtractionError.noSuchPath {
            throw CommandError("\(image): no \(path) in the image")
        } catch let error as ExtractionError {
            throw CommandError("\(error)")
        }
    }
}
