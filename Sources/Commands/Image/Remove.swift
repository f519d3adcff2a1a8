import ArgumentParser
import ComposefsOCI

struct Remove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm",
        abstract:
            "Remove images: by tag that tag, by digest all its tags. One that fails does not keep the others. The space is freed by gc.")

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
        // One that fails does not keep the others: the command repeated does what is left.
        var failures: [any Error] = []
        var wanted: [ByteString] = []
        for image in images {
            do { wanted += try names(of: image, in: store) } catch { failures.append(error) }
        }
        var seen: Set<ByteString> = []
        wanted.removeAll { !seen.insert($0).inserted }
        var removed: [ByteString] = []
        for name in wanted {
            do {
                try store.untag(name)
                removed.append(name)
            } catch {
                failures.append(error)
            }
        }
        if !json { for name in removed { try Output.print("Removed tag \(Output.printable(name))") } }
        if json, !removed.isEmpty || failures.isEmpty { try Output.print(["removed": .array(removed.map { .string($0.jsonText) })]) }
        try Output.flush()
        guard let last = failures.popLast() else { return }
        for failure in failures { Output.error("\(failure)") }
        throw last
    }

    /// The tags to be removed for one of the arguments.
    private func names(of image: ByteString, in store: ImageStore) throws -> [ByteString] {
        let found = try store.resolve(image)
        let tags = try store.tags()
        if tags.contains(where: { $0.name == image }) { return [image] }
        if tags.contains(where: { $0.name == found.name }), !isDigest(image) { return [found.name] }
        let all = tags.filter { $0.manifestDigest == found.manifestDigest }.map(\.name)
        guard !all.isEmpty else { throw CommandError("\(image): no tag names this image; gc removes it") }
        return all
    }

    private func isDigest(_ image: ByteString) -> Bool {
        let text = image.utf8Text ?? ""
        let plain = text.hasPrefix("@") ? String(text.dropFirst()) : text
        let digits = plain.hasPrefix("sha256:") ? String(plain.dropFirst(7)) : plain
        return digits.utf8.count >= 6 && digits.utf8.allSatisfy { Hex.value(of: $0) != nil }
    }
}
