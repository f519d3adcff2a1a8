import ArgumentParser
import ComposefsOCI

struct Remove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove images: by tag that tag, by digest all its tags. The space is freed by gc.")

    @Argument(help: "The images.")
    var images: [ByteString]

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard !images.isEmpty else { throw ValidationError("name at least one image") }
    }

    func run() throws {
        let store = try global.openStore().images
        // All are looked up first: a name that is wrong removes nothing.
        var names: [ByteString] = []
        for image in images {
            let found = try store.resolve(image)
            let tags = try store.tags()
            if tags.contains(where: { $0.name == image }) {
                names.append(image)
            } else if tags.contains(where: { $0.name == found.name }), !isDigest(image) {
                names.append(found.name)
            } else {
                let all = tags.filter { $0.manifestDigest == found.manifestDigest }.map(\.name)
                guard !all.isEmpty else { throw CommandError("\(image): no tag names this image; gc removes it") }
                names += all
            }
        }
        var seen: Set<ByteString> = []
        names.removeAll { !seen.insert($0).inserted }
        for name in names {
            try store.untag(name)
            if !json { try Output.print("Removed tag \(Output.printable(name))") }
        }
        if json { try Output.print(["removed": .array(names.map { .string($0.jsonText) })]) }
    }

    private func isDigest(_ image: ByteString) -> Bool {
        let text = image.utf8Text ?? ""
        let plain = text.hasPrefix("@") ? String(text.dropFirst()) : text
        let digits = plain.hasPrefix("sha256:") ? String(plain.dropFirst(7)) : plain
        return digits.utf8.count >= 6 && digits.utf8.allSatisfy { Hex.value(of: $0) != nil }
    }
}
