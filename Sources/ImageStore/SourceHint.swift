public import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
package import ComposefsRepository

/// The source of an image: the complete reference of the pull, as an extended attribute of the streams of its manifest and its config.
///
/// It is a hint: a repair fetches damaged parts from this source and verifies them as any pull does. Nothing else reads it.
package enum SourceHint {
    package static let attribute: ByteString = "user.cfsoci.source"
    /// In bytes; longer references are not recorded.
    private static let limit = 4096

    /// On a file system without user attributes nothing is recorded.
    package static func set(_ reference: ByteString, on stream: ObjectID, in repository: Repository) throws {
        guard !reference.isEmpty, reference.count <= limit else { return }
        let file = try repository.openObject(stream, verify: false)
        try? file.setExtendedAttribute(attribute, reference)
    }

    /// The hint of an image's streams, as far as they exist.
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
    /// The references that pulls recorded, of images and of their referrers. Reads neither manifests nor configs.
    ///
    /// - Throws: `RepositoryError` if the streams cannot be listed.
    public func recordedSources() throws -> [ByteString] {
        var found: Set<ByteString> = []
        for name in try repository.streamNames() where name.hasPrefix(StreamName.manifestPrefix) || name.hasPrefix(StreamName.configPrefix)
        {
            guard let stream = try usableStream(name), let text = SourceHint.text(on: [stream], in: repository) else { continue }
            found.insert(text)
        }
        return found.sorted()
    }

    /// Whether the source of a tag's image is known: it was recorded, or the tag is a complete registry reference.
    public func isOriginKnown(_ tag: ByteString) -> Bool {
        if let text = tag.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text { return true }
        guard let found = ((try? tags()) ?? []).first(where: { $0.name == tag }),
            let stream = (try? usableStream(StreamName.manifest(found.manifestDigest))) ?? nil
        else { return false }
        return SourceHint.text(on: [stream], in: repository) != nil
    }
}
