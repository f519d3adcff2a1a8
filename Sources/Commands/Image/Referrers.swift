import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Referrers: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Manage artifacts that belong to an image: signatures, bills of materials.",
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
            try ReferrerList(subject: subject, referrers: referrers).show(asJSON: json)
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
        static let configuration = CommandConfiguration(
            commandName: "remove", abstract: "Remove the record that an artifact belongs to an image.")

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

    /// Finds both, applies `change` and prints the text that it returns.
    func apply(_ change: (_ images: ImageStore, _ referrer: ContentDigest, _ subject: ContentDigest) throws -> String) throws {
        let images = try global.openStore().images
        let subject = try images.resolve(image).manifestDigest
        let referrer = try images.resolve(artifact).manifestDigest
        let done = try change(images, referrer, subject)
        try ChangedReferrer(subject: subject, referrer: referrer, done: done).show(asJSON: json)
    }
}

private struct ReferrerList: CommandReport {
    var subject: ContentDigest
    var referrers: [ContentDigest]

    var lines: [String] { referrers.map(\.description) }

    var json: JSONValue { ["subject": .text(subject), "referrers": .texts(referrers)] }
}

private struct ChangedReferrer: CommandReport {
    var subject: ContentDigest
    var referrer: ContentDigest
    var done: String

    var lines: [String] { [done] }

    var json: JSONValue { ["subject": .text(subject), "referrer": .text(referrer)] }
}
