public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
import ComposefsOCIModel
import ComposefsRepository

/// A name and its image, or an image without a name: what lists show, filters select and retention decides about.
public struct ImageRecord: Sendable, Hashable {
    /// What leads to the image.
    public enum Kind: Sendable, Hashable {
        /// A tag.
        case tag
        /// A name below `images/refs`, of an image that was made from a directory.
        case directory
        /// The name of an index of which no image has the name.
        case index
        /// Nothing: the next garbage collection removes the image unless it is in use.
        case dangling
    }

    public var kind: Kind
    /// The tag, the name, or the manifest's digest as text.
    public var name: ByteString
    /// Nil for an image that was made from a directory, as all digests.
    public var manifestDigest: ContentDigest?
    public var configDigest: ContentDigest?
    /// The EROFS image in the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// All EROFS images, those for booting too, and those of the images that `index` lists.
    public var imageIDs: [ObjectID] = []
    /// The index that has the name.
    public var index: IndexSummary?
    /// Whether the image has a root file system; an artifact has none.
    public var isContainer = true
    /// From the config; empty for an artifact.
    public var architecture = ""
    /// From the config; empty for an artifact.
    public var os = ""
    public var variant: String?
    /// When the image was built: from the config, as it is there.
    public var created: String?
    /// The config's labels.
    public var labels: [String: String] = [:]
    /// The sum of the layers' blobs as the manifest states them; for an image that was made from a directory the size of the EROFS image.
    public var size: UInt64 = 0
    public var layerCount = 0
    /// The number of artifacts that are recorded as referrers of the image.
    public var referrerCount = 0
    /// When the image came into the repository; nil if that is unknown.
    public var pulled: Timestamp?
    /// When the name was used last: to pull, mount, serve, push, export or copy the image. Nil if that is unknown.
    public var lastUsed: Timestamp?

    public init(kind: Kind, name: ByteString) {
        self.kind = kind
        self.name = name
    }

    /// `created` as a time; nil if there is none, or the text is not one.
    public var createdTime: Timestamp? { created.flatMap { Timestamp(rfc3339: $0) } }

    /// The name without tag and digest: `docker.io/library/alpine` of `docker.io/library/alpine:latest`.
    public var repositoryName: ByteString { Self.split(name).repository }

    /// The tag of a name: `latest` of `docker.io/library/alpine:latest`; empty if it has none.
    public var tagName: ByteString { Self.split(name).tag }

    static func split(_ name: ByteString) -> (repository: ByteString, tag: ByteString) {
        var bytes = name.bytes[...]
        if let at = bytes.lastIndex(of: UInt8(ascii: "@")), at > 0 { bytes = bytes[..<at] }
        // A colon before a slash begins a port.
        guard let colon = bytes.lastIndex(of: UInt8(ascii: ":")), colon > 0, !bytes[colon...].contains(UInt8(ascii: "/")) else {
            return (ByteString(bytes), "")
        }
        return (ByteString(bytes[..<colon]), ByteString(bytes[(colon + 1)...]))
    }
}

extension ImageStore {
    /// All tags and all names of images that were made from directories, by name. Those whose image cannot be read are listed separately.
    ///
    /// - Parameter dangling: also images that no name and no record of a referrer leads to.
    /// - Throws: `RepositoryError` if names cannot be listed.
    public func records(dangling: Bool = false) throws -> (records: [ImageRecord], broken: [BrokenImageName]) {
        var records: [ImageRecord] = []
        var broken: [BrokenImageName] = []
        var known: [ContentDigest: ImageRecord] = [:]
        var indexes = Dictionary(try namedIndexes().map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        for tag in try tags() {
            do {
                var record = try known[tag.manifestDigest] ?? record(of: tag)
                known[tag.manifestDigest] = record
                record.name = tag.name
                record.lastUsed = try lastUse(of: tag)
                if let named = indexes.removeValue(forKey: tag.name) { try add(named, to: &record) }
                records.append(record)
            } catch {
                indexes[tag.name] = nil
                broken.append(BrokenImageName(name: tag.name, reason: "\(error)"))
            }
        }
        for named in indexes.values {
            do {
                records.append(try record(of: named))
            } catch {
                broken.append(BrokenImageName(name: named.name, reason: "\(error)"))
            }
        }
        let named = try namedImages()
        broken += named.broken
        for image in named.images { records.append(try record(of: image)) }
        if dangling {
            let kept = Set(try repository.streamReferences().map(\.entry)).union(try indexedStreams())
            for name in try repository.streamNames() where !kept.contains(name) {
                guard let digest = StreamName.digest(in: name, after: StreamName.manifestPrefix) else { continue }
                do {
                    records.append(try record(of: TaggedImage(name: ByteString(digest.description), manifestDigest: digest)))
                } catch {
                    broken.append(BrokenImageName(name: ByteString(digest.description), reason: "\(error)"))
                }
            }
        }
        return (records.sorted { $0.name < $1.name }, broken.sorted { $0.name < $1.name })
    }

    private func record(of tag: TaggedImage) throws -> ImageRecord {
        guard let image = try image(tag.manifestDigest) else {
            throw ImageStoreError.damaged(stream: StreamName.manifest(tag.manifestDigest), .missing(tag: nil))
        }
        return try record(of: tag, image)
    }

    func record(of tag: TaggedImage, _ image: StoredImage) throws -> ImageRecord {
        // An image without a tag has its digest as name, which may be a tag, too.
        let isDangling =
            try tag.name == ByteString(tag.manifestDigest.description)
            && repository.streamReference(ImageTag.referencePath(tag.name)) == nil
        var record = ImageRecord(kind: isDangling ? .dangling : .tag, name: tag.name)
        record.manifestDigest = tag.manifestDigest
        record.configDigest = image.configDigest
        record.imageID = image.imageID(repository.erofsFormats.default)
        record.imageIDs = image.allImageIDs
        record.isContainer = image.isContainer
        record.architecture = image.config?.architecture ?? ""
        record.os = image.config?.os ?? ""
        record.variant = image.config?.variant
        record.created = image.config?.created
        record.labels = image.config?.runtime.labels ?? [:]
        record.size = image.manifest.layers.map(\.size).saturatingSum
        record.layerCount = image.manifest.layers.count
        record.referrerCount = try referrers(of: tag.manifestDigest).count
        record.pulled = try repository.streamTime(StreamName.manifest(tag.manifestDigest))
        if !isDangling { record.lastUsed = try lastUse(of: tag) }
        return record
    }

    /// Adds the index that has the name, too.
    private func add(_ named: NamedIndex, to record: inout ImageRecord) throws {
        guard let index = try index(named.digest) else {
            throw ImageStoreError.damaged(stream: StreamName.blob(named.digest), .missing(tag: nil))
        }
        record.index = try summary(of: index)
        record.imageIDs += imageIDs(of: index)
        let lastUsed = try repository.lastUse(ofStream: IndexName.referencePath(named.name))
        // An unknown last use is never old.
        if record.kind == .index {
            record.lastUsed = lastUsed
        } else {
            record.lastUsed = record.lastUsed.flatMap { old in lastUsed.map { max(old, $0) } }
        }
    }

    /// A name that only an index has.
    private func record(of named: NamedIndex) throws -> ImageRecord {
        var record = ImageRecord(kind: .index, name: named.name)
        record.isContainer = false
        try add(named, to: &record)
        record.pulled = try repository.streamTime(StreamName.blob(named.digest))
        record.referrerCount = try referrers(of: named.digest).count
        var layers: [ContentDigest: UInt64] = [:]
        for entry in record.index?.manifests ?? [] where entry.isStored {
            for layer in ((try? image(entry.digest)) ?? nil)?.manifest.layers ?? [] { layers[layer.digest] = layer.size }
        }
        record.size = Array(layers.values).saturatingSum
        return record
    }

    private func lastUse(of tag: TaggedImage) throws -> Timestamp? { try repository.lastUse(ofStream: ImageTag.referencePath(tag.name)) }

    func record(of image: NamedImage) throws -> ImageRecord {
        var record = ImageRecord(kind: .directory, name: image.name)
        record.imageID = image.imageID
        record.imageIDs = [image.imageID]
        record.size = try repository.objectSize(image.imageID) ?? 0
        record.pulled = try repository.imageTime(ByteString(image.imageID.hex))
        record.lastUsed = try repository.lastUse(ofImage: image.name)
        return record
    }

    // MARK: Uses

    /// Records that what a name stands for was used now: the tag, or the name below `images/refs`; a digest, or the beginning of one, is a use of
    /// all tags of that image. Nothing is recorded if this handle may not write, and nothing fails.
    ///
    /// - Returns: whether the name stands for anything.
    @discardableResult
    package func noteUse(named reference: ByteString) -> Bool {
        guard let names = try? references(of: reference), let tags = try? tags() else { return false }
        let indexes = ((try? namedIndexes()) ?? []).map(\.name)
        let known = Set(tags.map(\.name) + indexes)
        // Of an index and an image with the same name, both are used: they have one row in lists.
        repository.noteUse(
            streams: names.filter { known.contains($0) }.flatMap { [ImageTag.referencePath($0), IndexName.referencePath($0)] },
            images: names.filter { !known.contains($0) })
        return true
    }

    /// The same for the identifier of an EROFS image: it is a use of everything that names the image.
    package func noteUse(ofImage id: ObjectID) {
        var known: [ContentDigest: Bool] = [:]
        var used: [ByteString] = []
        for tag in (try? tags()) ?? [] {
            let isUsed = known[tag.manifestDigest] ?? ((try? image(tag.manifestDigest)) ?? nil)?.allImageIDs.contains(id) ?? false
            known[tag.manifestDigest] = isUsed
            if isUsed { used.append(ImageTag.referencePath(tag.name)) }
        }
        repository.noteUse(streams: used, images: (try? names(of: id)) ?? [])
    }
}
