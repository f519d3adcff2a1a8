public import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
package import ComposefsRepository

/// Where an image came from: the reference that a pull was given, in full, as an extended attribute of its manifest's and its config's stream.
///
/// It is a hint: a repair fetches from there what is damaged, and verifies it as any pull does. Nothing else looks at it.
package enum SourceHint {
    package static let attribute: ByteString = "user.cfsoci.source"
    /// Bytes; longer references are not kept.
    private static let limit = 4096

    /// A file system without user attributes keeps no hints.
    package static func set(_ reference: ByteString, on stream: ObjectID, in repository: Repository) throws {
        guard !reference.isEmpty, reference.count <= limit else { return }
        let file = try repository.openObject(stream, verify: false)
        try? file.setExtendedAttribute(attribute, reference)
    }

    /// What an image's streams say, as far as they are there.
    package static func text(of image: StoredImage, in repository: Repository) -> ByteString? {
        text(on: [image.manifestStream, image.configStream], in: repository)
    }

    package static func text(on streams: [ObjectID], in repository: Repository) -> ByteString? {
        for stream in streams {
            guard let file = try? repository.openObject(stream, verify: false),
                let text = (try? file.extendedAttribute(attribute)) ?? nil, !text.isEmpty, text.utf8Text != nil
            else { continue }
            return text
        }
        return nil
    }
}

extension ImageStore {
    /// The reference that the pull of a tag's image recorded; nil if there is none. Reads neither manifest nor config.
    public func recordedSource(of tag: TaggedImage) -> ByteString? {
        guard let stream = (try? usableStream(StreamName.manifest(tag.manifestDigest))) ?? nil else { return nil }
        return SourceHint.text(on: [stream], in: repository)
    }

    /// Whether the store knows where a tag's image can be fetched from: it was recorded, or the tag is a registry's reference in full.
    public func isOriginKnown(_ tag: ByteString) -> Bool {
        if let text = tag.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text { return true }
        guard let found = ((try? tags()) ?? []).first(where: { $0.name == tag }),
            let stream = (try? usableStream(StreamName.manifest(found.manifestDigest))) ?? nil
        else { return false }
        return SourceHint.text(on: [stream], in: repository) != nil
    }
}
