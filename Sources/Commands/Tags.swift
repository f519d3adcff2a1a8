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

struct Untag: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a name away. What only it kept goes with the next gc.")

    @Argument(help: "The name as it is stored.")
    var name: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        try global.openStore().images.untag(name)
        if json { return try Output.print(["removed": [.string(name.jsonText)]]) }
        try Output.print("Removed tag \(Output.printable(name))")
    }
}

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

struct Referrers: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Artifacts that belong to an image: signatures, bills of materials.",
        subcommands: [ListReferrers.self, AddReferrer.self, RemoveReferrer.self])

    struct ListReferrers: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List an image's referrers.")

        @Argument(help: "The image.")
        var image: ByteString

        @Flag(help: "Print JSON.")
        var json = false

        @OptionGroup var global: GlobalOptions

        func run() throws {
            let images = try global.openStore(readOnly: true).images
            let subject = try images.resolve(image).manifestDigest
            let referrers = try images.referrers(of: subject)
            if json {
                try Output.print(["subject": .string(subject.description), "referrers": .array(referrers.map { .string($0.description) })])
            } else {
                for referrer in referrers { try Output.print(referrer.description) }
            }
        }
    }

    struct AddReferrer: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "add", abstract: "Record that an artifact belongs to an image.")

        @OptionGroup var pair: ReferrerPair

        func run() throws {
            try pair.apply { images, referrer, subject in
                try images.addReferrer(referrer, to: subject)
                return "Added \(referrer) to \(subject)"
            }
        }
    }

    struct RemoveReferrer: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "remove", abstract: "Forget that an artifact belongs to an image.")

        @OptionGroup var pair: ReferrerPair

        func run() throws {
            try pair.apply { images, referrer, subject in
                try images.removeReferrer(referrer, of: subject)
                return "Removed \(referrer) from \(subject)"
            }
        }
    }
}

/// An image and an artifact that belongs to it.
struct ReferrerPair: ParsableArguments {
    @Argument(help: "The image.")
    var image: ByteString

    @Argument(help: "The artifact.")
    var artifact: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    /// Looks both up, does `change` and prints what it says of itself.
    func apply(_ change: (_ images: ImageStore, _ referrer: ContentDigest, _ subject: ContentDigest) throws -> String) throws {
        let images = try global.openStore().images
        let subject = try images.resolve(image).manifestDigest
        let referrer = try images.resolve(artifact).manifestDigest
        let done = try change(images, referrer, subject)
        if json { return try Output.print(["subject": .string(subject.description), "referrer": .string(referrer.description)]) }
        try Output.print(done)
    }
}
