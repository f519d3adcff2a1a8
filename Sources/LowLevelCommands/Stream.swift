package import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

package struct Stream: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "stream", abstract: "Print streams by name.", subcommands: [CatStream.self])

    package init() {}

    package struct CatStream: ParsableCommand {
        package static let configuration = CommandConfiguration(commandName: "cat", abstract: "Print a stream's whole content.")

        @Argument(help: "The stream's name in streams/, or refs/… below it.")
        var name: ByteString

        @OptionGroup var global: GlobalOptions

        package init() {}

        package func run() throws {
            let store = try global.openStore(Self.rights, readOnly: true)
            var entry = name
            if entry.hasPrefix("refs/") {
                guard let reference = try store.repository.streamReference(ByteString(Array(entry.bytes.dropFirst(5)))) else {
                    throw RepositoryError.streamMissing(entry)
                }
                entry = reference.entry
            }
            guard let id = try store.repository.stream(entry) else { throw RepositoryError.streamMissing(entry) }
            try store.images.readLayer(id) { try Output.write($0) }
        }
    }
}
