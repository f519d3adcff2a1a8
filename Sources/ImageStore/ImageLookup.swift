public import ComposefsBytes
import ComposefsEROFS
package import ComposefsFileTree
public import ComposefsHashing
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// A tag and the manifest that it refers to.
public struct TaggedImage: Sendable, Hashable {
    /// The tag; the manifest's digest as text for an image without a tag.
    public var name: ByteString
    /// The digest of the manifest.
    public var manifestDigest: ContentDigest

    public init(name: ByteString, manifestDigest: ContentDigest) {
        self.name = name
        self.manifestDigest = manifestDigest
    }
}

extension ImageStore {
    // MARK: Tags

    /// All tags, in ascending byte order. References that are not tags of manifests are left out; `check` reports them.
    public func tags() throws -> [TaggedImage] {
        try repository.streamReferences(under: ImageTag.directory).compactMap { reference in
            guard let digest = StreamName.digest(in: reference.entry, after: StreamName.manifestPrefix) else { return nil }
            return TaggedImage(name: ImageTag.decode(reference.name), manifestDigest: digest)
        }.sorted { $0.name < $1.name }
    }

    /// Gives a stored image a name, durably. A name that is in use moves to the image.
    ///
    /// - Throws: `ImageStoreError.invalidTag`; `.noSuchImage` if the manifest is not in the store.
    public func tag(_ manifestDigest: ContentDigest, as name: ByteString) throws {
        try ImageTag.check(name)
        guard try repository.stream(StreamName.manifest(manifestDigest)) != nil else {
            throw ImageStoreError.noSuchImage(ByteString(manifestDigest.description))
        }
        var publication = Repository.Publication()
        publication.streamReference(ImageTag.referencePath(name), to: StreamName.manifest(manifestDigest))
        try repository.publish(publication)
    }

    /// Removes a name, of an image or an index or both, durably. What it kept stays until garbage is collected, and what an image in use needs stays as long as it is in use.
    ///
    /// - Parameter force: also the last name of an image that is mounted, booted or deployed.
    /// - Throws: `ImageStoreError.noSuchImage` if the name is not in use; `.imageInUse`.
    public func untag(_ name: ByteString, force: Bool = false) throws {
        try ImageTag.check(name)
        if !force { try requireUnused([name]) }
        // Both are gone for good when one of them is removed here.
        let wasIndex = try repository.removeStreamReferenceSurely(IndexName.referencePath(name))
        let path = ImageTag.referencePath(name)
        let wasTag = try wasIndex ? repository.removeStreamReferenceSurely(path) : repository.removeStreamReference(path)
        guard wasIndex || wasTag else { throw ImageStoreError.noSuchImage(name) }
    }

    // MARK: Finding a manifest

    /// The manifest that IMAGE refers to: a tag as stored; a short form of one; `sha256:…` or `@sha256:…` of a manifest or config; six or
    /// more first digits of one of those; `NAME@sha256:…`, which is NAME if that refers to the manifest or config with this digest.
    ///
    /// - Throws: `ImageStoreError.noSuchImage`; `.onlyIndex` if it is the name or digest of an index and no image has it; `.ambiguous`,
    ///   `.otherImage`.
    public func resolve(_ text: ByteString) throws -> TaggedImage {
        do {
            return try resolveManifest(text)
        } catch ImageStoreError.noSuchImage(let missing) {
            // If what is asked for is ambiguous there, it is not here all the same.
            if let index = try? resolveIndex(text) { throw ImageStoreError.onlyIndex(text, index.digest) }
            throw ImageStoreError.noSuchImage(missing)
        }
    }

    private func resolveManifest(_ text: ByteString) throws -> TaggedImage {
        let tags = try tags()
        if let tag = tags.first(where: { $0.name == text }) { return tag }
        if let plain = text.utf8Text {
            let bare = plain.hasPrefix("@") ? String(plain.dropFirst()) : plain
            if let digest = ContentDigest(bare) { return try resolve(digest, text, tags) }
            if let tag = try tagged(by: text, among: tags) { return tag }
            let digits = bare.hasPrefix("sha256:") ? String(bare.dropFirst(7)) : bare
            if digits.utf8.count >= 6, digits.utf8.allSatisfy({ Hex.value(of: $0) != nil }) {
                return try resolve(prefix: digits, text, tags)
            }
            if let at = plain.lastIndex(of: "@"), at > plain.startIndex,
                let digest = ContentDigest(String(plain[plain.index(after: at)...]))
            {
                return try resolve(ByteString(String(plain[..<at])), as: digest)
            }
        }
        throw ImageStoreError.noSuchImage(text)
    }

    /// The name that a reference to a registry has when it is stored; nil if there is none.
    func tagged(by text: ByteString, among tags: [TaggedImage]) throws -> TaggedImage? {
        guard let reference = text.utf8Text.flatMap({ try? RegistryReference(parsing: $0) }) else { return nil }
        let canonical = ByteString(reference.canonical)
        return try tags.first { $0.name == canonical } ?? resolve(shortForm: reference, text, tags)
    }

    /// The manifest that a name refers to, if it is the one that the caller requires.
    private func resolve(_ name: ByteString, as digest: ContentDigest) throws -> TaggedImage {
        let found = try resolve(name)
        if found.manifestDigest == digest { return found }
        if let image = try image(found.manifestDigest), image.configDigest == digest { return found }
        throw ImageStoreError.otherImage(name, found: found.manifestDigest.description, wanted: digest.description)
    }

    /// A registry configuration may have mapped a short name to another registry: then the only stored image of that name is meant.
    private func resolve(shortForm reference: RegistryReference, _ text: ByteString, _ tags: [TaggedImage]) throws -> TaggedImage? {
        guard let short = reference.shortName else { return nil }
        let found = tags.filter { tag in
            guard let name = tag.name.utf8Text, let stored = try? RegistryReference(parsing: name) else { return false }
            return stored.shortName == nil && stored.name == short && stored.tag == reference.tag && stored.digest == reference.digest
        }
        guard let first = found.first, found.count > 1 else { return found.first }
        let manifests = Set(found.map(\.manifestDigest))
        guard manifests.count == 1 else { throw ImageStoreError.ambiguous(text, candidates: manifests.sorted { $0.hex < $1.hex }) }
        return first
    }

    private func resolve(_ digest: ContentDigest, _ text: ByteString, _ tags: [TaggedImage]) throws -> TaggedImage {
        if try repository.stream(StreamName.manifest(digest)) != nil { return named(digest, tags) }
        let manifests = try manifests(ofConfigs: [digest])
        guard let first = manifests.first else { throw ImageStoreError.noSuchImage(text) }
        guard manifests.count == 1 else { throw ImageStoreError.ambiguous(text, candidates: manifests) }
        return named(first, tags)
    }

    private func resolve(prefix digits: String, _ text: ByteString, _ tags: [TaggedImage]) throws -> TaggedImage {
        func matching(_ prefix: ByteString) throws -> [ContentDigest] {
            try repository.streamNames().compactMap { StreamName.digest(in: $0, after: prefix) }.filter { $0.hex.hasPrefix(digits) }
        }
        var found = Set(try matching(StreamName.manifestPrefix))
        let configs = try matching(StreamName.configPrefix)
        if !configs.isEmpty { found.formUnion(try manifests(ofConfigs: Set(configs))) }
        guard let first = found.first else { throw ImageStoreError.noSuchImage(text) }
        guard found.count == 1 else { throw ImageStoreError.ambiguous(text, candidates: Array(found)) }
        return named(first, tags)
    }

    /// Manifests with one of these configs.
    private func manifests(ofConfigs configs: Set<ContentDigest>) throws -> [ContentDigest] {
        let keys = Set(configs.map { ReferenceKey.config($0) })
        return try repository.streamNames().compactMap { name in
            guard let digest = StreamName.digest(in: name, after: StreamName.manifestPrefix), let id = try repository.stream(name) else {
                return nil
            }
            let stream = try repository.openStream(id)
            return stream.namedReferences.contains { keys.contains($0.name) } ? digest : nil
        }
    }

    private func named(_ digest: ContentDigest, _ tags: [TaggedImage]) -> TaggedImage {
        tags.first { $0.manifestDigest == digest } ?? TaggedImage(name: ByteString(digest.description), manifestDigest: digest)
    }

    /// The image that IMAGE refers to, see `resolve`, and the tag that refers to it.
    ///
    /// - Throws: `ImageStoreError`, `RepositoryError`, `OCIError`.
    public func open(_ text: ByteString) throws -> (name: ByteString, image: StoredImage) {
        let found = try resolve(text)
        guard let image = try image(found.manifestDigest) else {
            throw ImageStoreError.damaged(
                stream: StreamName.manifest(found.manifestDigest), .missing(tag: found.name))
        }
        return (found.name, image)
    }
}

/// The image that a name refers to: a pulled one, or one that was made of a directory.
package enum FoundImage {
    /// An image with manifest and config, and the tag that refers to it.
    case tagged(ByteString, StoredImage)
    /// An EROFS image with a name below `images/refs`.
    case named(NamedImage)
}

extension ImageStore {
    /// Tags take precedence, as they do for mount.
    package func find(_ text: ByteString) throws -> FoundImage {
        do {
            let (name, image) = try open(text)
            return .tagged(name, image)
        } catch let error as ImageStoreError {
            guard case .noSuchImage = error, let image = try namedImage(text) else { throw error }
            return .named(image)
        }
    }

    /// The tree of the EROFS image of either.
    package func tree(ofImage text: ByteString) throws -> FileTree {
        switch try find(text) {
        case .tagged(_, let image): try tree(of: image)
        case .named(let image): try erofsImage(image.imageID).tree()
        }
    }
}
