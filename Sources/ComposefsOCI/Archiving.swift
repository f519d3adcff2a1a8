public import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
public import ComposefsTransfer
public import ComposefsTransports

// Archives and layouts with several images, as `docker save` and `docker load` write and read them.

/// The images that a load has stored.
public struct LoadResult: Sendable {
    /// One image, with all names that it has now.
    public struct Image: Sendable {
        /// The pull that stored it.
        public var pull: PullResult
        /// The tags: the recorded names, or one that is made from the digest of the manifest.
        public var names: [ByteString]
        /// Whether the archive records a name.
        public var isNamed: Bool
    }

    /// What the archive is.
    public var format: ImageArchive.Format
    /// The images in the order of the archive.
    public var images: [Image]
}

/// The images that a save has written.
public struct SaveResult: Sendable {
    /// One image, with all names that it has in the archive.
    public struct Image: Sendable {
        /// The push that wrote it.
        public var push: PushResult
        /// The names in the archive; empty for an image that was named by its digest.
        public var names: [String]
    }

    /// The format of the archive.
    public var format: SavedArchive.Format
    /// The images in the order in which they were named, each once.
    public var images: [Image]
}

extension Store {
    /// Stores all images of a docker archive, an archive of an OCI layout or an OCI layout, with the names that are recorded in it. What the
    /// path is is detected.
    ///
    /// Each image is verified and becomes visible in one durable step, as in a pull. If one fails, those before it stay. All names are checked
    /// before the first image is stored. An image without a name gets the tag `loaded-` and the first 12 digits of its manifest's digest.
    /// Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - path: a regular file, a pipe (`/dev/stdin`) or a directory.
    ///   - options: platform, limits, cancellation and observer; `name` and `policy` are ignored.
    /// - Throws: as `pull`.
    public func load(_ path: some ByteStringConvertible, _ options: PullOptions = PullOptions()) throws -> LoadResult {
        let path = path.byteString
        return try cancellable(options.cancellation) {
            let scratch = ArchiveScratch(
                repository.path, limits: options.limits, checksSpace: options.checksSpace, cancellation: options.cancellation)
            let archive = try ImageArchive(path, scratch: scratch)
            let names = try archive.images.map { image in try tags(for: image, options) }
            var loaded: [LoadResult.Image] = []
            for (image, names) in zip(archive.images, names) {
                var options = options
                options.name = names[0]
                if options.recordedReference == nil { options.recordedReference = try recorded(path, archive.format, image) }
                let result = try pullImage(from: image.source, into: repository, options)
                for name in names.dropFirst() { try images.tag(result.manifestDigest, as: name) }
                for name in names { images.noteUse(named: name) }
                loaded.append(LoadResult.Image(pull: result, names: names, isNamed: !image.names.isEmpty))
            }
            return LoadResult(format: archive.format, images: loaded)
        }
    }

    /// The reference of one image, for a later repair; nil if the archive is a pipe, which is gone by then.
    private func recorded(_ path: ByteString, _ format: ImageArchive.Format, _ image: ImageArchive.Image) throws -> ByteString? {
        guard let position = image.position, let path = path.utf8Text,
            let kind = try FileDescriptor.currentDirectory.statusIfPresent(at: ByteString(path), follow: true)?.kind,
            kind == .regular || kind == .directory
        else { return nil }
        let text = "\(format.rawValue):\(path)\(position)"
        return try parseReference(text).recorded
    }

    /// The tags of an image of an archive, checked.
    private func tags(for image: ImageArchive.Image, _ options: PullOptions) throws -> [ByteString] {
        var names = image.names.map { ByteString($0) }
        if names.isEmpty {
            let digest = try resolveManifest(image.source, platform: options.platform, limits: options.limits, options.cancellation).digest
            names = [ByteString("loaded-" + digest.hex.prefix(12))]
        }
        for name in names { try ImageTag.check(name) }
        return names
    }

    /// Writes images into one archive, each blob once. Blocks the caller's thread.
    ///
    /// The names in the archive are the tags by which the images were named; an image that was named by a digest has none. All images are
    /// looked up before the first byte is written. Layers are written as they are if the store keeps all of an image's original blobs, which
    /// keeps its digest; otherwise uncompressed into an archive for docker, and compressed as the manifest states into an archive of a
    /// layout, unless `options` say something else.
    ///
    /// - Parameters:
    ///   - names: the images, as for `ImageStore.resolve`.
    ///   - target: the file or stream.
    ///   - format: which tools find the images.
    ///   - options: compression, referrers, cancellation and observer. One layer is written at a time.
    /// - Throws: as `push`; `SavedArchive.ArtifactRefused` for an artifact in an archive for docker.
    public func save(
        _ names: [some ByteStringConvertible], to target: SavedArchive.Target, format: SavedArchive.Format = .docker,
        _ options: PushOptions = PushOptions()
    ) throws -> SaveResult {
        let names = names.map(\.byteString)
        return try cancellable(options.cancellation) {
            var chosen: [(image: StoredImage, names: [String])] = []
            for name in names {
                let (tag, image) = try images.open(name)
                guard image.isContainer || format == .oci else { throw SavedArchive.ArtifactRefused(name: name) }
                let isTag = tag != ByteString(image.manifestDigest.description)
                guard let text = tag.utf8Text else { throw OCIError.invalidReference(tag, .notText) }
                if let known = chosen.firstIndex(where: { $0.image.manifestDigest == image.manifestDigest }) {
                    if isTag, !chosen[known].names.contains(text) { chosen[known].names.append(text) }
                } else {
                    chosen.append((image, isTag ? [text] : []))
                }
            }
            let archive = try SavedArchive(target, format: format)
            let destinations = try chosen.map { try archive.destination(named: $0.names) }
            var saved: [SaveResult.Image] = []
            for ((image, names), destination) in zip(chosen, destinations) {
                var options = options
                options.jobs = 1
                if options.compression == nil, format == .docker, !image.keepsAllBlobs { options.compression = CompressionFormat.none }
                let result = try pushImage(image, of: images, to: destination, options)
                saved.append(SaveResult.Image(push: result, names: names))
            }
            try archive.finish()
            for name in names { images.noteUse(named: name) }
            return SaveResult(format: format, images: saved)
        }
    }
}

extension StoredImage {
    /// Whether the store has the original blob of each layer.
    fileprivate var keepsAllBlobs: Bool {
        let kept = Set(keptBlobs.map(\.digest) + layerIdentifiers)
        return manifest.layers.allSatisfy { kept.contains($0.digest) }
    }
}

extension SavedArchive {
    /// An artifact has no file system, and archives for docker have only images.
    public struct ArtifactRefused: Error, Hashable, Sendable, CustomStringConvertible {
        /// The artifact as it was named.
        public var name: ByteString

        public var description: String { "\(name) is an artifact, and archives for docker have only images" }
    }
}
