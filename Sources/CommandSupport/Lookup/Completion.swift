package import ArgumentParser
import ComposefsBytes
package import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCI

/// What a shell offers for an argument. Errors lead to no offers: the command itself reports them.
extension CompletionKind {
    /// The names of the repository's images.
    package static var imageName: CompletionKind {
        .custom { words, _, _ in Completion.names(Completion.images(words)) }
    }

    /// The names of the images of the repository that `--from` names.
    package static var imageNameInOther: CompletionKind {
        .custom { words, _, _ in
            let path = Completion.value(of: "--from", in: words)
            return path.map { Completion.names(Completion.images(["--repo", $0])) } ?? []
        }
    }

    /// The repository's layers, by their diff IDs.
    package static var layerName: CompletionKind {
        .custom { words, _, _ in
            let prefix = StreamName.layerPrefix
            let names = (try? Completion.images(words)?.repository.streamNames()) ?? []
            return names.filter { $0.hasPrefix(prefix) }.compactMap { ByteString($0.bytes.dropFirst(prefix.count)).utf8Text }
        }
    }

    /// Where images come from: transports, and below those that name files the paths.
    package static var source: CompletionKind {
        .custom { _, _, prefix in
            Completion.reference(prefix, ["docker://", "oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:"])
        }
    }

    /// Where images are written to.
    package static var destination: CompletionKind {
        .custom { _, _, prefix in Completion.reference(prefix, ["docker://", "oci:", "oci-archive:"]) }
    }
}

package enum Completion {
    private static let withPaths = ["oci:", "oci-archive:", "docker-archive:", "dir:"]

    static func names(_ images: ImageStore?) -> [String] {
        guard let images else { return [] }
        let tags = Set(((try? images.tags()) ?? []).map(\.name) + ((try? images.namedIndexes()) ?? []).map(\.name)).sorted()
        let named = (try? images.namedImages().images.map(\.name)) ?? []
        return (tags + named).compactMap(\.utf8Text)
    }

    /// The value of an option that takes one; the last if there are several. bash takes an equals sign for a word.
    static func value(of option: String, in words: [String]) -> String? {
        var found: String?
        for (index, word) in words.enumerated() {
            if word.hasPrefix(option + "=") { found = String(word.dropFirst(option.count + 1)) }
            guard word == option else { continue }
            let rest = words[(index + 1)...].drop { $0 == "=" }
            found = rest.first ?? found
        }
        return found.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The images of the repository that the words of the command line, the environment or the convention name.
    package static func images(_ words: [String]) -> ImageStore? {
        var options: [String] = []
        var rest = words[...]
        while let word = rest.popFirst() {
            switch word {
            case "--user", "--system": options = [word]
            case "--repo":
                // bash takes an equals sign for a word.
                if rest.first == "=" { _ = rest.popFirst() }
                options = rest.popFirst().map { [word, $0] } ?? []
            default: if word.hasPrefix("--repo="), word != "--repo=" { options = [word] }
            }
        }
        guard let path = try? GlobalOptions.parse(options).repositoryPath() else { return nil }
        // Does not wait for a collection: the shell waits for the answer.
        return try? Store.open(path, OpenOptions(readOnly: true, wait: .upTo(.milliseconds(200)))).images
    }

    static func reference(_ prefix: String, _ transports: [String]) -> [String] {
        guard let transport = withPaths.first(where: { prefix.hasPrefix($0) && transports.contains($0) }) else {
            return transports.filter { $0.hasPrefix(prefix) }
        }
        let path = ByteString(String(prefix.dropFirst(transport.count)))
        let slash = UInt8(ascii: "/")
        let directory = path.bytes.lastIndex(of: slash).map { ByteString(Array(path.bytes[...$0])) } ?? ""
        let start = ByteString(Array(path.bytes[directory.count...]))
        guard let opened = try? FileDescriptor.open(directory.isEmpty ? "." : directory, [.readOnly, .directory]),
            let entries = try? opened.entries()
        else { return [] }
        return entries.filter { $0.name.hasPrefix(start) && (!start.isEmpty || !$0.name.hasPrefix(".")) }.compactMap { entry in
            ByteString(directory.bytes + entry.name.bytes + (entry.kind == .directory ? [slash] : [])).utf8Text.map { transport + $0 }
        }.sorted()
    }
}
