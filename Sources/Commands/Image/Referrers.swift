import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Referrers: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "referrers", abstract: "Manage artifacts that belong to an image: signatures, bills of materials.",
        subcommands: [ListReferrers.self, AddReferrer.self, RemoveReferrer.self])

    struct ListReferrers: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List an image's referrers.")

        @Argument(help: "The image.", completion: .imageName)
        var image: ByteString

        @Option(help: ArgumentHelp("Only list artifacts of this type.", valueName: "type"))
        var artifactType: String?

        @Flag(name: .shortAndLong, help: "Also list the referrers of referrers.")
        var recursive = false

        @Flag(name: .shortAndLong, help: "Show types, sizes and subjects.")
        var long = false

        @OptionGroup var form: FormatOptions

        @Flag(help: "Print JSON.")
        var json = false

        @OptionGroup var global: GlobalOptions

        func validate() throws { _ = try fields() }

        private func fields() throws -> [String]? { try form.fields(of: ReferrerList.fields, json: json) }

        func run() throws {
            let images = try global.openStore(Self.rights, readOnly: true).images
            let subject = try images.resolve(image).manifestDigest
            let found = try images.referrerDetails(of: subject, artifactType: artifactType, isRecursive: recursive)
            let list = ReferrerList(subject: subject, referrers: found, isLong: long)
            if let fields = try fields() { return try FormatOptions.show(fields, list.details) }
            try list.show(asJSON: json)
        }
    }

    struct AddReferrer: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "add", abstract: "Record that an artifact belongs to an image, or make one of files.",
            discussion: """
                With --artifact-type, an artifact is made of the files and annotations: a manifest of OCI 1.1 with the empty config, as oras makes \
                it. Its digest depends on the time, unless --annotation org.opencontainers.image.created=TIME is given.
                """)

        @Argument(help: "The image.", completion: .imageName)
        var image: ByteString

        @Argument(help: "The artifact in the repository.", completion: .imageName)
        var artifact: ByteString?

        @Option(help: ArgumentHelp("Make an artifact of this type, such as application/spdx+json.", valueName: "type"))
        var artifactType: String?

        @Option(
            help: ArgumentHelp(
                "A file of the artifact, with its media type (default: application/vnd.oci.image.layer.v1.tar).", valueName: "path[:type]"))
        var file: [ByteString] = []

        @Option(help: ArgumentHelp("An annotation of the artifact.", valueName: "key=value"))
        var annotation: [String] = []

        @Flag(help: "Print JSON.")
        var json = false

        @OptionGroup var global: GlobalOptions

        func validate() throws {
            guard (artifact == nil) != (artifactType == nil) else {
                throw ValidationError("name either an ARTIFACT of the repository, or the --artifact-type of a new one")
            }
            guard artifact == nil || file.isEmpty && annotation.isEmpty else {
                throw ValidationError("--file and --annotation go with --artifact-type only")
            }
            _ = try annotations()
        }

        private func annotations() throws -> [String: String] {
            var found: [String: String] = [:]
            for text in annotation {
                let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard sides.count == 2, !sides[0].isEmpty else { throw ValidationError("--annotation takes KEY=VALUE") }
                guard found.updateValue(String(sides[1]), forKey: String(sides[0])) == nil else {
                    throw ValidationError("--annotation \(sides[0]) is given twice")
                }
            }
            return found
        }

        /// `PATH:TYPE`; the path may contain colons.
        private static func file(_ text: ByteString) -> NewArtifact.File {
            if let colon = text.bytes.lastIndex(of: UInt8(ascii: ":")), colon > 0,
                let type = ByteString(Array(text.bytes[(colon + 1)...])).utf8Text, type.contains("/"), !type.hasPrefix("/")
            {
                return NewArtifact.File(ByteString(Array(text.bytes[..<colon])), mediaType: type)
            }
            return NewArtifact.File(text)
        }

        func run() throws {
            let images = try global.openStore(Self.rights) { $0.readable = file.map { Self.file($0).path } }.images
            let subject = try images.resolve(image).manifestDigest
            let referrer: ContentDigest
            if let artifact {
                referrer = try images.resolve(artifact).manifestDigest
                try images.addReferrer(referrer, to: subject)
            } else {
                let new = NewArtifact(
                    artifactType: artifactType ?? "", files: file.map { Self.file($0) }, annotations: try annotations())
                referrer = try images.addReferrer(new, to: subject)
            }
            try ChangedReferrer(subject: subject, referrer: referrer, done: "Added \(referrer) to \(subject)").show(asJSON: json)
        }
    }

    struct RemoveReferrer: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove", abstract: "Remove the record that an artifact belongs to an image.")

        @Argument(help: "The image.", completion: .imageName)
        var image: ByteString

        @Argument(help: "The artifact.", completion: .imageName)
        var artifact: ByteString

        @Flag(help: "Print JSON.")
        var json = false

        @OptionGroup var global: GlobalOptions

        func run() throws {
            let images = try global.openStore(Self.rights).images
            let subject = try Self.digest(of: image, images)
            let referrer = try Self.digest(of: artifact, images)
            try images.removeReferrer(referrer, of: subject)
            try ChangedReferrer(subject: subject, referrer: referrer, done: "Removed \(referrer) from \(subject)").show(asJSON: json)
        }

        /// A record may be left of something that is no longer in the store; then only its digest names it.
        private static func digest(of name: ByteString, _ images: ImageStore) throws -> ContentDigest {
            do {
                return try images.resolve(name).manifestDigest
            } catch let error as ImageStoreError {
                guard let digest = name.utf8Text.flatMap({ ContentDigest($0) }) else { throw error }
                return digest
            }
        }
    }
}

private struct ReferrerList: CommandReport {
    var subject: ContentDigest
    var referrers: [ImageStore.Referrer]
    var isLong: Bool

    var lines: [String] {
        guard isLong else { return referrers.map(\.digest.description) }
        return referrers.map { "\($0.digest) \($0.size.map(String.init) ?? "-") \(Output.safe($0.artifactType ?? "-")) \($0.subject)" }
    }

    var json: JSONValue {
        var document: JSONValue = ["subject": .text(subject), "referrers": .texts(referrers.map(\.digest))]
        if isLong { document["details"] = .array(details) }
        return document
    }

    /// The members of each detail.
    static let fields = ["subject", "digest", "mediaType", "size", "artifactType", "annotations"]

    var details: [JSONValue] {
        referrers.map { referrer -> JSONValue in
            let annotations = referrer.annotations.sorted { $0.key < $1.key }.map { (key: $0.key, value: JSONValue.string($0.value)) }
            return [
                "subject": .text(referrer.subject), "digest": .text(referrer.digest),
                "mediaType": referrer.mediaType.map { .string($0) } ?? .null, "size": referrer.size.map { JSONValue($0) } ?? .null,
                "artifactType": referrer.artifactType.map { .string($0) } ?? .null,
                "annotations": .object(JSONObject(annotations)),
            ]
        }
    }
}

private struct ChangedReferrer: CommandReport {
    var subject: ContentDigest
    var referrer: ContentDigest
    var done: String

    var lines: [String] { [done] }

    var json: JSONValue { ["subject": .text(subject), "referrer": .text(referrer)] }
}
