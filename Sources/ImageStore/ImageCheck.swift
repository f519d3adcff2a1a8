public import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSplitStream

/// The extent of `ImageStore.check`.
public struct ImageCheckOptions: Sendable {
    /// Do not read objects: leave out content digests and the re-assembly of layers.
    public var metadataOnly: Bool
    /// Re-assemble the layers of this part only.
    public var subset: CheckSubset?
    /// Also re-assemble layers that are taken by their record otherwise, merge the layers anew and compare the EROFS images' identifiers.
    public var deep: Bool

    public init(metadataOnly: Bool = false, deep: Bool = false, subset: CheckSubset? = nil) {
        self.metadataOnly = metadataOnly
        self.deep = deep
        self.subset = subset
    }
}

/// A fault of an image.
public struct ImageProblem: Sendable, Hashable, CustomStringConvertible {
    /// `manifest-read-failed`, `layer-ref-missing`, …
    public var kind: String
    /// The tag; the digest if the image has none.
    public var image: ByteString
    /// The stream, layer or object at fault, and the fault; may be empty.
    public var detail: String

    package init(kind: String, image: ByteString, detail: String) {
        self.kind = kind
        self.image = image
        self.detail = detail
    }

    public var description: String { "fsck: \(kind): \(image)\(detail.isEmpty ? "" : ": " + detail)" }
}

/// The result of a check of the images.
public struct ImageReport: Sendable {
    /// The number of tags that were checked; an image with two tags counts twice.
    public var imagesChecked = 0
    /// The number of tags with faults.
    public var imagesDamaged = 0
    /// The number of records of referrers.
    public var referrersChecked = 0
    /// The number of records of referrers that have faults or are missing.
    public var referrersDamaged = 0
    /// The number of records of disks.
    public var disksChecked = 0
    /// The number of disks with faults.
    public var disksDamaged = 0
    /// The number of names of indexes.
    public var indexesChecked = 0
    /// The number of names of indexes with faults, of the index or of an image that it lists and that has no tag.
    public var indexesDamaged = 0
    /// Tags of images with EROFS images of other formats than the repository's default only: no fault, but an upgrade is needed to mount them.
    public var withoutDefaultImage: [ByteString] = []
    /// Layers and blobs whose streams were re-assembled, and the result hashed.
    public var layersReassembled = 0
    /// Layers and blobs of which all objects are intact, and that the pull which recorded their digests re-assembled.
    public var layersByRecord = 0
    /// All faults, in the tags' order.
    public var problems: [ImageProblem] = []

    /// Whether there is no fault.
    public var isClean: Bool { problems.isEmpty }

    public init() {}
}

extension ImageStore {
    /// Checks every tagged image, or one: that documents match their digests, that everything to which they refer exists, that layers re-assemble to
    /// their diff IDs, and (deep) that the EROFS images match the merged layers. `Repository.check` checks the repository itself.
    ///
    /// - Parameter only: the image, by a name or digest for `resolve`; nil for all tags.
    /// - Throws: `ImageStoreError` if `only` names no image; faults are in the report.
    public func check(_ only: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions()) throws -> ImageReport {
        try check(only, options, verified: VerifiedObjects())
    }

    /// - Parameter verified: objects that the same check has read, and that are what their names say.
    package func check(_ only: ByteString?, _ options: ImageCheckOptions, verified: VerifiedObjects) throws -> ImageReport {
        var check = ImageCheck(LayerCheck(store: self, options: options, verified: verified))
        if let only {
            let index = try resolveIndex(only)
            var image: TaggedImage?
            do { image = try resolve(only) } catch ImageStoreError.onlyIndex {}
            check.readLayers(of: (image.map { [$0.manifestDigest] } ?? []) + (index.map { listedImages(of: $0.digest) } ?? []))
            if let image {
                check.visit(image.name, image.manifestDigest)
                try check.visitReferrers(of: image.manifestDigest)
            }
            if let index {
                check.visitIndex(index.name, index.digest, tagged: image.map { [$0.manifestDigest] } ?? [])
                try check.visitReferrers(of: index.digest)
            }
        } else {
            let tags = try repository.streamReferences(under: ImageTag.directory)
            let tagged = tags.compactMap { StreamName.digest(in: $0.entry, after: StreamName.manifestPrefix) }
            check.readLayers(of: tagged + (try namedIndexes().flatMap { listedImages(of: $0.digest) }))
            for reference in tags {
                let name = ImageTag.decode(reference.name)
                if name.bytes.first == UInt8(ascii: "@") {
                    check.report.problems.append(
                        ImageProblem(kind: "invalid-ref-name", image: name, detail: "leading '@' is reserved for digest references"))
                }
                guard let digest = StreamName.digest(in: reference.entry, after: StreamName.manifestPrefix) else {
                    check.report.problems.append(
                        ImageProblem(
                            kind: "ref-resolve-failed", image: name,
                            detail: "streams/refs/oci/\(reference.name) leads to \(reference.target), which is no manifest"))
                    continue
                }
                check.visit(name, digest)
            }
            try check.visitIndexes(tagged: Set(tagged))
            try check.visitReferrers(of: nil)
            try check.visitHints()
        }
        return check.report
    }

    /// The stored manifests that an index lists; none if it cannot be read.
    private func listedImages(of digest: ContentDigest) -> [ContentDigest] {
        guard let index = (try? index(digest)) ?? nil, let listed = try? manifests(of: index) else { return [] }
        return listed.filter { $0.isStored && !$0.isIndex }.map(\.digest)
    }
}

private struct ImageCheck {
    private let layerCheck: LayerCheck
    var report = ImageReport()
    /// Images share layers, and each layer is read once. Nil if it has no fault.
    private var layers: [ContentDigest: LayerCheck.Problem?] = [:]
    private var store: ImageStore { layerCheck.store }
    private var options: ImageCheckOptions { layerCheck.options }

    init(_ layerCheck: LayerCheck) { self.layerCheck = layerCheck }

    /// Reads the layers of images on several threads, before the images are checked one after the other.
    mutating func readLayers(of manifests: [ContentDigest]) {
        var found: [LayerCheck.Layer] = []
        for digest in Set(manifests) {
            guard let image = (try? store.image(digest)) ?? nil else { continue }
            for identifier in image.layerIdentifiers {
                if let stream = image.layerStream(identifier) { found.append(.init(identifier: identifier, stream: stream)) }
            }
        }
        let findings = layerCheck.run(found)
        for finding in findings.values { report.count(finding) }
        for layer in found where layers[layer.identifier] == nil { layers[layer.identifier] = .some(findings[layer]?.problem) }
    }

    mutating func visit(_ name: ByteString, _ digest: ContentDigest) {
        let before = report.problems.count
        report.imagesChecked += 1
        checkImage(name, digest)
        if report.problems.count > before { report.imagesDamaged += 1 }
    }

    /// Checks the indexes of all names, and the images that they list and no tag names.
    mutating func visitIndexes(tagged: Set<ContentDigest>) throws {
        for reference in try store.repository.streamReferences(under: IndexName.directory) {
            let name = ImageTag.decode(reference.name)
            guard let digest = StreamName.digest(in: reference.entry, after: StreamName.blobPrefix) else {
                report.indexesChecked += 1
                report.indexesDamaged += 1
                add(
                    "ref-resolve-failed", name,
                    "streams/refs/\(IndexName.prefix)\(reference.name) leads to \(reference.target), which is no blob")
                continue
            }
            visitIndex(name, digest, tagged: tagged)
        }
    }

    /// - Parameter tagged: images that are checked by their tags.
    mutating func visitIndex(_ name: ByteString, _ digest: ContentDigest, tagged: Set<ContentDigest>) {
        let before = report.problems.count
        report.indexesChecked += 1
        var seen = tagged
        var pending = [digest]
        while let next = pending.popLast() {
            guard seen.insert(next).inserted else { continue }
            do {
                guard let index = try store.index(next) else {
                    add("index-read-failed", name, "\(StreamName.blob(next)) is missing")
                    continue
                }
                for member in index.members {
                    if !member.isStored {
                        // An index may list what was never stored. What its stream refers to was.
                        if member.recorded != nil { add("index-member-missing", name, "\(member.stream) is missing") }
                    } else if member.isIndex {
                        pending.append(member.digest)
                    } else if seen.insert(member.digest).inserted {
                        checkImage(name, member.digest)
                    }
                }
            } catch {
                add("index-read-failed", name, "\(StreamName.blob(next)): \(error)")
            }
        }
        if report.problems.count > before { report.indexesDamaged += 1 }
    }

    /// Checks the image of a manifest. If it cannot be read, that is the fault.
    private mutating func checkImage(_ name: ByteString, _ manifest: ContentDigest) {
        do {
            if let image = try store.image(manifest) {
                check(name, image)
            } else {
                add("manifest-read-failed", name, "\(StreamName.manifest(manifest)) is missing")
            }
        } catch {
            add("image-read-failed", name, "\(StreamName.manifest(manifest)): \(error)")
        }
    }

    /// The referrers of one subject, their referrers and so on; all recorded referrers if `subject` is nil.
    mutating func visitReferrers(of subject: ContentDigest?) throws {
        var seen: Set<ByteString> = []
        var pending = [subject.map(ReferrerRecord.directory(of:)) ?? ReferrerRecord.directory]
        while let directory = pending.popLast() {
            for reference in try store.repository.streamReferences(under: directory) {
                let name = directory + "/" + reference.name
                guard seen.insert(name).inserted else { continue }
                let before = report.problems.count
                report.referrersChecked += 1
                if let artifact = visitReferrer(name, reference), subject != nil {
                    pending.append(ReferrerRecord.directory(of: artifact))
                }
                if report.problems.count > before { report.referrersDamaged += 1 }
            }
        }
    }

    /// The artifact; nil if the record cannot be read.
    private mutating func visitReferrer(_ name: ByteString, _ reference: Reference) -> ContentDigest? {
        guard let artifact = ReferrerRecord.parse(name)?.artifact else {
            add("referrer-name", name, "streams/refs/\(name) does not name a subject and an artifact by their digests")
            return nil
        }
        guard reference.entry == StreamName.manifest(artifact) else {
            add("referrer-mismatch", name, "streams/refs/\(name) leads to \(reference.target), not to the manifest of the artifact")
            return nil
        }
        checkImage(name, artifact)
        return artifact
    }

    /// Checks streams of layers and blobs that no image has and that have a hint: the next pull would use them.
    mutating func visitHints() throws {
        for name in try store.repository.streamNames() {
            let digest =
                StreamName.digest(in: name, after: StreamName.layerPrefix) ?? StreamName.digest(in: name, after: StreamName.blobPrefix)
            guard let digest, layers[digest] == nil else { continue }
            let stream: ObjectID
            do {
                guard let linked = try store.usableStream(name), try hasHint(linked) else { continue }
                stream = linked
            } catch {
                add("layer-check-failed", name, "\(error)")
                continue
            }
            let finding = layerCheck.examine(digest, stream)
            report.count(finding)
            if let problem = finding.problem { add(problem.kind, name, problem.detail) }
        }
    }

    /// Missing and damaged objects have none: the check of the repository reports them.
    private func hasHint(_ stream: ObjectID) throws -> Bool {
        do {
            return try LayerHint.text(on: stream, in: store.repository) != nil
        } catch RepositoryError.system(let fault) {
            throw RepositoryError.system(fault)
        } catch {
            return false
        }
    }

    private mutating func check(_ name: ByteString, _ image: StoredImage) {
        let identifiers = image.layerIdentifiers
        if let config = image.config, config.diffIDs.count != image.manifest.layers.count {
            add("layer-count", name, "\(image.manifest.layers.count) layers, but \(config.diffIDs.count) diff IDs")
        }
        checkStream(name, StreamName.manifest(image.manifestDigest), image.manifestStream)
        checkConfigStream(name, image)
        var isWhole = true
        for identifier in identifiers {
            guard let stream = image.layerStream(identifier) else {
                add(image.isContainer ? "layer-ref-missing" : "artifact-layer-ref-missing", name, identifier.description)
                isWhole = false
                continue
            }
            do {
                let linked = try store.usableStream(StreamName.layer(identifier))
                if linked == nil {
                    add("layer-stream-missing", name, identifier.description)
                } else if linked != stream, try image.isContainer || !store.isLayerName(identifier) {
                    add("layer-stream-mismatch", name, "\(identifier): the link leads to another object than the config's reference")
                }
            } catch {
                add("layer-check-failed", name, "\(identifier): \(error)")
            }
            if let problem = check(layer: identifier, stream) {
                add(problem.kind, name, problem.detail)
                isWhole = false
            }
        }
        for blob in image.keptBlobs { check(kept: blob, name) }
        guard image.isContainer else { return }
        checkImages(name, image, rebuild: isWhole && options.deep)
    }

    /// Checks that the stream's link leads to the object to which the image refers.
    private mutating func checkStream(_ name: ByteString, _ stream: ByteString, _ id: ObjectID) {
        do {
            if try store.repository.stream(stream) != id {
                add("stream-mismatch", name, "\(stream) leads to another object than the one that is referred to, \(id)")
            }
        } catch {
            add("stream-mismatch", name, "\(error)")
        }
    }

    /// Checks that the config's link leads to the stream to which the manifest refers, or to another stream of the same document. An interrupted
    /// upgrade leaves the latter between config and manifest, and the image is intact in both cases.
    private mutating func checkConfigStream(_ name: ByteString, _ image: StoredImage) {
        let stream = StreamName.config(image.configDigest)
        do {
            let linked = try store.repository.stream(stream)
            if try linked == image.configStream || linked.map({ try isConfig($0, image) }) == true { return }
            add("stream-mismatch", name, "\(stream) leads to another object than the one that is referred to, \(image.configStream)")
        } catch {
            add("stream-mismatch", name, "\(error)")
        }
    }

    /// Whether a stream has the document of the image's config.
    private func isConfig(_ stream: ObjectID, _ image: StoredImage) throws -> Bool {
        do {
            _ = try store.document(
                StreamName.config(image.configDigest), stream, image.configDigest, type: StreamContentType.config,
                limit: ImageLimits.configBytes)
            return true
        } catch RepositoryError.system(let fault) {
            throw RepositoryError.system(fault)
        } catch {
            return false
        }
    }

    /// Checks that a blob that is kept beside its layer is the one that the manifest names.
    private mutating func check(kept blob: (digest: ContentDigest, stream: ObjectID), _ name: ByteString) {
        do {
            if try store.usableStream(StreamName.blob(blob.digest)) != blob.stream {
                add("kept-blob-stream-mismatch", name, "\(StreamName.blob(blob.digest)) does not lead to the object that is referred to")
            }
        } catch {
            add("kept-blob-check-failed", name, "\(StreamName.blob(blob.digest)): \(error)")
        }
        guard let problem = check(layer: blob.digest, blob.stream) else { return }
        add(problem.kind.replacingPrefix("layer", with: "kept-blob"), name, problem.detail)
    }

    private mutating func check(layer identifier: ContentDigest, _ stream: ObjectID) -> LayerCheck.Problem? {
        if let known = layers[identifier] { return known }
        let finding = layerCheck.examine(identifier, stream)
        report.count(finding)
        layers[identifier] = .some(finding.problem)
        return finding.problem
    }

    private mutating func checkImages(_ name: ByteString, _ image: StoredImage, rebuild: Bool) {
        let repository = store.repository
        var known: [(key: String, id: ObjectID)] = image.bootImages
        for (key, version) in [(ReferenceKey.image, ErofsVersion.v2), (ReferenceKey.imageV1, .v1)] {
            if let id = image.imageID(version) { known.append((key, id)) }
        }
        if !known.contains(where: { !$0.key.hasPrefix(ReferenceKey.bootPrefix) }) {
            add("image-ref-missing", name, "the config refers to no EROFS image; pull the image again")
        } else if image.imageID(repository.erofsFormats.default) == nil {
            report.withoutDefaultImage.append(name)
        }
        for (key, id) in known {
            do {
                guard try repository.objectSize(id) != nil else {
                    add("image-object-missing", name, "\(key): \(id)")
                    continue
                }
                if try !repository.hasImage(id) { add("image-link-missing", name, "\(key): images/\(id)") }
            } catch {
                add("image-check-failed", name, "\(key): \(error)")
            }
        }
        guard rebuild else { return }
        do {
            let tree = try store.tree(of: image)
            for version in ErofsVersion.allCases {
                guard let id = image.imageID(version), version != .v0 || repository.erofsFormats.default == .v0,
                    version != .v1 || repository.erofsFormats.default != .v0
                else { continue }
                let actual = try store.imageID(of: tree, version)
                if actual != id {
                    add("image-id-mismatch", name, "\(version): the layers give \(actual), but the config refers to \(id)")
                }
            }
        } catch {
            add("image-rebuild-failed", name, "\(error)")
        }
    }

    private mutating func add(_ kind: String, _ name: ByteString, _ detail: String) {
        report.problems.append(ImageProblem(kind: kind, image: name, detail: detail))
    }
}

extension String {
    fileprivate func replacingPrefix(_ old: String, with new: String) -> String { hasPrefix(old) ? new + dropFirst(old.count) : self }
}
