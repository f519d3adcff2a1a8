public import ComposefsBytes
public import ComposefsHashing
public import ComposefsOCIModel
package import ComposefsRepository
import ComposefsSplitStream

/// Names of indexes are references below `streams/refs/oci-indexes/`, encoded as tags are.
public enum IndexName {
    package static let directory: ByteString = "oci-indexes"
    /// Where names of indexes are below `streams/refs/`.
    public static let prefix: ByteString = "oci-indexes/"

    package static func referencePath(_ name: ByteString) -> ByteString { prefix + ImageTag.encode(name) }
}

/// An index in the repository: its bytes as they were pulled, and which of its manifests are stored.
public struct StoredIndex: Sendable {
    /// A manifest or index that an index lists.
    public struct Member: Sendable, Hashable {
        /// The entry of the index; of several for the same digest the first.
        public var descriptor: Descriptor
        /// Whether it is an index itself.
        public var isIndex: Bool
        /// Whether the repository has it.
        public var isStored: Bool
        /// The object that the index's stream refers to; nil if the index does not keep it.
        package var recorded: ObjectID?

        public var digest: ContentDigest { descriptor.digest }
        package var stream: ByteString { isIndex ? StreamName.blob(digest) : StreamName.manifest(digest) }
    }

    public let digest: ContentDigest
    /// The object of the index's stream.
    public let stream: ObjectID
    /// With its bytes as they were pulled.
    public let index: ImageIndex
    /// What it lists, each digest once, in its order. Entries that are neither manifests nor indexes are left out.
    public let members: [Member]
}

/// What lists show of an index: all manifests that it and the indexes in it list.
public struct IndexSummary: Sendable, Hashable {
    public struct Manifest: Sendable, Hashable {
        public var digest: ContentDigest
        /// As the index states it; nil if it does not.
        public var platform: Platform?
        /// Whether the repository has it.
        public var isStored: Bool
    }

    public var digest: ContentDigest
    public var mediaType: String
    public var manifests: [Manifest]
    /// Whether all of them are stored.
    public var isComplete: Bool { manifests.allSatisfy(\.isStored) }
}

/// A name and the index that it refers to.
public struct NamedIndex: Sendable, Hashable {
    /// The name; the digest as text for an index without one.
    public var name: ByteString
    public var digest: ContentDigest

    public init(name: ByteString, digest: ContentDigest) {
        self.name = name
        self.digest = digest
    }
}

extension ImageStore {
    /// How many indexes are read for one name: a pull stores no more.
    private static let indexLimit = ImageLimits.indexCount

    // MARK: Reading

    /// An index by its digest; nil if the repository has none. Its bytes are compared with the digest.
    ///
    /// - Throws: `ImageStoreError.damaged`, `RepositoryError`; `OCIError` if the blob is not an index.
    public func index(_ digest: ContentDigest) throws -> StoredIndex? {
        let name = StreamName.blob(digest)
        guard let document = try document(name, digest, type: StreamContentType.blob, limit: ImageLimits.largestManifest) else {
            return nil
        }
        let index = try ImageIndex(parsing: document.bytes)
        let recorded = Dictionary(document.references.map { ($0.name, $0.id) }, uniquingKeysWith: { first, _ in first })
        var members: [StoredIndex.Member] = []
        var seen: Set<ContentDigest> = []
        for entry in index.manifests where entry.isOfKnownKind && seen.insert(entry.digest).inserted {
            var member = StoredIndex.Member(descriptor: entry, isIndex: MediaType.isIndex(entry.mediaType), isStored: false)
            member.isStored = try usableStream(member.stream) != nil
            member.recorded = member.stream.utf8Text.flatMap { recorded[$0] }
            members.append(member)
        }
        return StoredIndex(digest: digest, stream: document.id, index: index, members: members)
    }

    /// The manifests that an index and the indexes in it list, each once, in their order. An inner index that is not stored stands for what it
    /// lists.
    ///
    /// - Throws: as `index`.
    public func manifests(of index: StoredIndex) throws -> [StoredIndex.Member] {
        var found: [StoredIndex.Member] = []
        var seen: Set<ContentDigest> = [index.digest]
        var count = 0
        func visit(_ index: StoredIndex) throws {
            count += 1
            for member in index.members where seen.insert(member.digest).inserted {
                guard member.isIndex, member.isStored, count < Self.indexLimit, let inner = try self.index(member.digest) else {
                    found.append(member)
                    continue
                }
                try visit(inner)
            }
        }
        try visit(index)
        return found
    }

    public func summary(of index: StoredIndex) throws -> IndexSummary {
        IndexSummary(
            digest: index.digest, mediaType: index.index.mediaType,
            manifests: try manifests(of: index).map { member in
                let platform = member.descriptor.platform.flatMap { $0.isUnknown ? nil : $0 }
                return IndexSummary.Manifest(digest: member.digest, platform: platform, isStored: member.isStored)
            })
    }

    // MARK: Names

    /// All names of indexes, in ascending byte order. References that do not lead to a blob are left out; `check` reports them.
    public func namedIndexes() throws -> [NamedIndex] {
        try repository.streamReferences(under: IndexName.directory).compactMap { reference in
            guard let digest = StreamName.digest(in: reference.entry, after: StreamName.blobPrefix) else { return nil }
            return NamedIndex(name: ImageTag.decode(reference.name), digest: digest)
        }.sorted { $0.name < $1.name }
    }

    /// The index that a name or digest refers to, in the forms that `resolve` takes; nil if there is none.
    ///
    /// - Throws: `ImageStoreError.ambiguous`, `.otherImage`.
    public func resolveIndex(_ text: ByteString) throws -> NamedIndex? {
        let named = try namedIndexes()
        let tags = named.map { TaggedImage(name: $0.name, manifestDigest: $0.digest) }
        func found(_ tag: TaggedImage) -> NamedIndex { NamedIndex(name: tag.name, digest: tag.manifestDigest) }
        if let tag = tags.first(where: { $0.name == text }) { return found(tag) }
        guard let plain = text.utf8Text else { return nil }
        let bare = plain.hasPrefix("@") ? String(plain.dropFirst()) : plain
        if let digest = ContentDigest(bare) { return named.first { $0.digest == digest } }
        if let tag = try tagged(by: text, among: tags) { return found(tag) }
        let digits = bare.hasPrefix("sha256:") ? String(bare.dropFirst(7)) : bare
        if digits.utf8.count >= 6, digits.utf8.allSatisfy({ Hex.value(of: $0) != nil }) {
            let matching = Set(named.map(\.digest)).filter { $0.hex.hasPrefix(digits) }
            guard matching.count <= 1 else { throw ImageStoreError.ambiguous(text, candidates: Array(matching)) }
            return matching.first.flatMap { digest in named.first { $0.digest == digest } }
        }
        if let at = plain.lastIndex(of: "@"), at > plain.startIndex, let digest = ContentDigest(String(plain[plain.index(after: at)...])),
            let index = try resolveIndex(ByteString(String(plain[..<at])))
        {
            guard index.digest == digest else {
                throw ImageStoreError.otherImage(text, found: index.digest.description, wanted: digest.description)
            }
            return index
        }
        return nil
    }

    /// The index that a name or digest refers to, and its name.
    ///
    /// - Throws: `ImageStoreError.noSuchIndex`, `.damaged`, and as `resolveIndex`.
    public func openIndex(_ text: ByteString) throws -> (name: ByteString, index: StoredIndex) {
        guard let found = try resolveIndex(text) else { throw ImageStoreError.noSuchIndex(text) }
        guard let index = try index(found.digest) else {
            throw ImageStoreError.damaged(stream: StreamName.blob(found.digest), .missing(tag: found.name))
        }
        return (found.name, index)
    }

    /// The index that has exactly this name; nil if there is none or it cannot be read.
    func readableIndex(named name: ByteString) throws -> StoredIndex? {
        guard let named = try namedIndexes().first(where: { $0.name == name }) else { return nil }
        return (try? index(named.digest)) ?? nil
    }

    /// Gives what a name or digest stands for, an image or an index or both, another name, durably. The name moves if it is in use: an index that has
    /// it keeps it only if it lists the image.
    ///
    /// - Throws: `ImageStoreError`.
    public func tag(_ text: ByteString, as name: ByteString) throws -> (manifest: ContentDigest?, index: ContentDigest?) {
        try ImageTag.check(name)
        let index = try resolveIndex(text)
        let manifest: ContentDigest?
        do { manifest = try resolve(text).manifestDigest } catch ImageStoreError.onlyIndex { manifest = nil }
        var publication = Repository.Publication()
        if let manifest { publication.streamReference(ImageTag.referencePath(name), to: StreamName.manifest(manifest)) }
        if let index { publication.streamReference(IndexName.referencePath(name), to: StreamName.blob(index.digest)) }
        let before = index == nil ? try readableIndex(named: name) : nil
        try repository.publish(publication)
        if index == nil, let manifest {
            let lists = try before.map { try manifests(of: $0).contains { $0.digest == manifest } } ?? false
            if !lists { _ = try repository.removeStreamReferenceSurely(IndexName.referencePath(name)) }
        }
        if manifest == nil { _ = try repository.removeStreamReferenceSurely(ImageTag.referencePath(name)) }
        return (manifest, index?.digest)
    }

    /// The EROFS images of the manifests that an index lists; none of those that cannot be read.
    package func imageIDs(of index: StoredIndex) -> [ObjectID] {
        ((try? manifests(of: index)) ?? []).filter { !$0.isIndex }.flatMap { imageIDs(of: $0.digest) }
    }

    /// The streams that named indexes list and that exist: manifests and indexes. `without` has references that are ignored.
    func indexedStreams(without: Set<ByteString> = []) throws -> Set<ByteString> {
        var found: Set<ByteString> = []
        var pending = try namedIndexes().filter { !without.contains(IndexName.referencePath($0.name)) }.map(\.digest)
        var seen: Set<ContentDigest> = []
        while let digest = pending.popLast() {
            guard seen.insert(digest).inserted, let index = (try? index(digest)) ?? nil else { continue }
            for member in index.members where member.isStored {
                found.insert(member.stream)
                if member.isIndex { pending.append(member.digest) }
            }
        }
        return found
    }

    // MARK: Writing

    /// Stores an index's stream, byte for byte, and adds it and its name to `publication`. Its named references lead to the streams of what it
    /// lists and what the repository has.
    ///
    /// - Parameters:
    ///   - streams: of manifests and indexes that `publication` publishes, by digest.
    ///   - name: nil for an index that another one lists.
    ///   - source: its source, for a repair; see `SourceHint`.
    /// - Returns: the object of the stream.
    @discardableResult
    package func store(
        _ index: ImageIndex, _ digest: ContentDigest, _ streams: [ContentDigest: ObjectID] = [:], name: ByteString?,
        source: ByteString? = nil, _ publication: inout Repository.Publication
    ) throws -> ObjectID {
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        var seen: Set<ContentDigest> = []
        for entry in index.manifests where entry.isOfKnownKind && seen.insert(entry.digest).inserted {
            let member = MediaType.isIndex(entry.mediaType) ? StreamName.blob(entry.digest) : StreamName.manifest(entry.digest)
            guard let key = member.utf8Text, let stream = try streams[entry.digest] ?? usableStream(member) else { continue }
            builder.addNamedReference(key, stream)
        }
        try addContent(index.bytes, to: &builder)
        let stream = try builder.finish().id
        if let source { try SourceHint.set(source, on: stream, in: repository) }
        publication.stream(StreamName.blob(digest), stream)
        if let name { publication.streamReference(IndexName.referencePath(name), to: StreamName.blob(digest)) }
        return stream
    }

    /// After the stream of a manifest has changed: stores the streams of the indexes again that refer to it, and of the indexes that list those.
    /// Unreadable ones are left alone.
    func renewIndexes(listing manifest: ContentDigest, _ stream: ObjectID, _ publication: inout Repository.Publication) throws {
        let names = try namedIndexes()
        guard !names.isEmpty else { return }
        var indexes: [StoredIndex] = []
        var seen: Set<ContentDigest> = []
        var pending = names.map(\.digest)
        while let digest = pending.popLast() {
            guard seen.insert(digest).inserted, let index = (try? index(digest)) ?? nil else { continue }
            indexes.append(index)
            pending += index.members.filter(\.isIndex).map(\.digest)
        }
        var current = [manifest: stream]
        // Those that others list come first. The loop ends, because no index can list itself.
        var order: [ContentDigest] = []
        var isGrowing = true
        while isGrowing {
            isGrowing = false
            for index in indexes {
                let isStale = index.members.contains { member in
                    guard let recorded = member.recorded, let now = current[member.digest] else { return false }
                    return recorded != now
                }
                guard isStale else { continue }
                let new = try renewed(index, current)
                guard current[index.digest] != new else { continue }
                current[index.digest] = new
                order.removeAll { $0 == index.digest }
                order.append(index.digest)
                isGrowing = true
            }
        }
        for digest in order { if let id = current[digest] { publication.stream(StreamName.blob(digest), id) } }
    }

    private func renewed(_ index: StoredIndex, _ current: [ContentDigest: ObjectID]) throws -> ObjectID {
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        for member in index.members {
            guard let recorded = member.recorded, let key = member.stream.utf8Text else { continue }
            builder.addNamedReference(key, current[member.digest] ?? recorded)
        }
        try addContent(index.index.bytes, to: &builder)
        return try builder.finish().id
    }
}
