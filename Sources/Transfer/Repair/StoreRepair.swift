import ComposefsBoot
import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSplitStream
import ComposefsTransports

extension ImageStore {
    /// Repairs the faults that the checks of the repository and of the images found. Files with wrong names are set aside. Then each incomplete or
    /// damaged image is stored again, from its intact parts in the store and, for the rest, from its source. Each step is atomic and durable; the
    /// next repair continues an interrupted one.
    ///
    /// - Parameters:
    ///   - faults: what `Repository.check` found, with all objects read.
    ///   - imageFaults: what `check` found.
    /// - Throws: `RepositoryError` if the repository cannot be written to or listed. The report states why an image cannot be repaired.
    public func repair(_ faults: FsckReport, _ imageFaults: ImageReport, _ options: RepairOptions) throws -> RepairReport {
        var repair = StoreRepair(store: self, options: options)
        return try repair.run(faults, imageFaults)
    }
}

struct StoreRepair {
    let store: ImageStore
    let options: RepairOptions
    var report = RepairReport()
    /// Created on first use, because it reads all objects.
    private var catalog: StoreCatalog?
    /// The manifests that were examined, and whether their images are complete and intact now.
    var known: [ContentDigest: Bool] = [:]
    var repository: Repository { store.repository }

    init(store: ImageStore, options: RepairOptions) {
        self.store = store
        self.options = options
        report.isDryRun = options.isDryRun
    }

    mutating func did(_ action: RepairAction) {
        report.actions.append(action)
        options.observer?(.did(action))
    }

    mutating func run(_ faults: FsckReport, _ imageFaults: ImageReport) throws -> RepairReport {
        let only = try options.image.map { try store.hasName($0) ? nil : try store.resolveIfImage($0) } ?? nil
        let index = try options.image.flatMap { try store.resolveIndex($0) }
        let name = only == nil && index == nil ? options.image : nil
        var faulty: [ByteString: [String]] = [:]
        for problem in imageFaults.problems { faulty[problem.image, default: []].append(problem.description) }
        // Before anything is moved: the hints are attributes of files that may be damaged.
        let targets = try findTargets().filter { target in
            only.map { target.digest == $0.manifestDigest } ?? name.map { target.name == $0 } ?? (index == nil)
        }
        let hints = try indexSources()
        if !options.isDryRun { try repository.beginPull() }
        try setAside(faults, imageFaults)
        try bringObjects(faults)
        try relinkReferences(faults)
        for target in targets { try mend(target, faulty[target.name] ?? []) }
        for named in try store.namedIndexes() where options.image == nil || index?.digest == named.digest {
            try mend(named, hints[named.digest])
        }
        try lookForDangling()
        try removeTemporaries()
        return report
    }

    // MARK: Targets

    /// An image to check and repair.
    struct Target {
        enum Kind {
            case tag
            case referrer(of: ContentDigest)
            /// An image that only an index keeps.
            case listed
            case named(ObjectID)
        }

        var kind: Kind
        var name: ByteString
        var digest: ContentDigest?
        var recorded: ByteString?
        /// The image before the repair; nil if it cannot be read.
        var image: StoredImage?
    }

    private func findTargets() throws -> [Target] {
        var targets = try store.tags().map { target(.tag, $0.name, $0.manifestDigest) }
        for reference in try repository.streamReferences(under: ReferrerRecord.directory) {
            let name = ReferrerRecord.prefix + reference.name
            guard let (subject, artifact) = ReferrerRecord.parse(name) else { continue }
            targets.append(target(.referrer(of: subject), name, artifact))
        }
        for reference in try repository.imageReferences() {
            guard let id = ObjectID(hex: reference.entry.bytes), id.algorithm == repository.algorithm else { continue }
            targets.append(Target(kind: .named(id), name: reference.name, digest: nil, recorded: nil, image: nil))
        }
        return targets
    }

    func target(_ kind: Target.Kind, _ name: ByteString, _ digest: ContentDigest) -> Target {
        let image = (try? store.image(digest)) ?? nil
        let streams = [(try? store.usableStream(StreamName.manifest(digest))) ?? nil, image?.configStream].compactMap(\.self)
        return Target(
            kind: kind, name: name, digest: digest, recorded: SourceHint.text(on: streams, in: repository), image: image)
    }

    // MARK: Wrong names

    private mutating func setAside(_ faults: FsckReport, _ imageFaults: ImageReport) throws {
        var entries: Set<ByteString> = []
        for problem in faults.problems {
            switch problem.kind {
            case .objectOpenFailed, .objectDigestMismatch, .objectVerityMissing, .objectVerityFailed:
                guard let id = ObjectID(objectPath: problem.path.bytes.dropFirst(8)) else { continue }
                if options.isDryRun {
                    did(.setAside(path: problem.path, to: nil))
                } else if let newPath = try repository.setAsideDamaged(id) {
                    did(.setAside(path: problem.path, to: newPath))
                }
            case .entryNotSymlink: entries.insert(problem.path)
            // The link leads to another object than its name requires. A link to a damaged object is correct again when the object is.
            case .linkMismatch where isEntry(problem.path): entries.insert(problem.path)
            case .streamOpenFailed, .streamReadFailed: if try leadsToIntact(problem.path) { entries.insert(problem.path) }
            default: break
            }
        }
        for problem in imageFaults.problems
        where problem.image.hasPrefix(StreamName.layerPrefix) || problem.image.hasPrefix(StreamName.blobPrefix) {
            if problem.kind == "layer-digest-mismatch" { entries.insert("streams/" + problem.image) }
        }
        for path in entries.sorted() {
            let newPath = options.isDryRun ? nil : try repository.setAsideEntry(path)
            if options.isDryRun || newPath != nil { did(.setAside(path: path, to: newPath)) }
        }
    }

    private func isEntry(_ path: ByteString) -> Bool {
        (path.hasPrefix("streams/") || path.hasPrefix("images/")) && path.bytes.count { $0 == UInt8(ascii: "/") } == 1
    }

    /// Whether a stream's link leads to an intact object, so that the link itself is at fault.
    private func leadsToIntact(_ path: ByteString) throws -> Bool {
        guard isEntry(path), let id = try store.usableStream(ByteString(Array(path.bytes.dropFirst(8)))) else { return false }
        return try repository.isIntact(id)
    }

    // MARK: From another repository

    private mutating func bringObjects(_ faults: FsckReport) throws {
        guard let source = options.repository?.repository, source.algorithm == repository.algorithm else { return }
        var wanted: Set<ObjectID> = []
        for problem in faults.problems {
            switch problem.kind {
            case .objectOpenFailed, .objectDigestMismatch, .objectVerityMissing, .objectVerityFailed:
                if let id = ObjectID(objectPath: problem.path.bytes.dropFirst(8)) { wanted.insert(id) }
            case .missingObjectReference, .missingNamedReference, .imageMissingObject: if let id = problem.object { wanted.insert(id) }
            case .brokenSymlink where problem.path.hasPrefix("images/"):
                if let id = ObjectID(hex: problem.path.bytes.dropFirst(7)) { wanted.insert(id) }
            case .brokenSymlink where problem.path.hasPrefix("streams/") && isEntry(problem.path):
                if let id = try store.usableStream(ByteString(Array(problem.path.bytes.dropFirst(8)))) { wanted.insert(id) }
            default: break
            }
        }
        // The copied objects may refer to more missing ones.
        var count = 0
        var seen: Set<ObjectID> = []
        while !wanted.isEmpty {
            seen.formUnion(wanted)
            let ids = try wanted.sorted().filter { try repository.isIntact($0) == false && source.isIntact($0) }
            if !ids.isEmpty, !options.isDryRun {
                _ = try ObjectImporter(from: source, to: repository).run(ids, threads: Host.processorCount)
            }
            count += ids.count
            var more: Set<ObjectID> = []
            for id in ids {
                if let stream = try? source.openStream(id) { more.formUnion(stream.objectReferences + stream.namedReferences.map(\.id)) }
            }
            wanted = more.subtracting(seen)
        }
        guard count > 0 else { return }
        if !options.isDryRun { try repository.publish(Repository.Publication()) }
        did(.objectsBrought(count: count))
    }

    // MARK: References

    /// A reference whose target is damaged, but resembles that of an existing entry.
    private mutating func relinkReferences(_ faults: FsckReport) throws {
        for problem in faults.problems where problem.kind == .linkMismatch || problem.kind == .brokenSymlink {
            let isStream = problem.path.hasPrefix("streams/refs/")
            guard isStream || problem.path.hasPrefix("images/refs/") else { continue }
            let prefix: ByteString = isStream ? "streams/refs/" : "images/refs/"
            let name = ByteString(Array(problem.path.bytes.dropFirst(prefix.count)))
            guard let reference = try isStream ? repository.streamReference(name) : repository.imageReference(name) else { continue }
            let names = isStream ? try repository.streamNames() : try repository.imageIDs().map { ByteString($0.hex) }
            let near = names.filter { Self.isNear(reference.entry, $0) }
            guard near.count == 1, let entry = near.first else { continue }
            if !options.isDryRun { try repository.relink(problem.path, to: entry) }
            did(.linkWritten(path: problem.path, target: (isStream ? "streams/" : "images/") + entry))
        }
    }

    /// Whether two names of equal length differ in at most two bytes. Digests never do by chance.
    private static func isNear(_ text: ByteString, _ other: ByteString) -> Bool {
        guard text.count == other.count, text.count >= 64 else { return false }
        return zip(text.bytes, other.bytes).count { $0 != $1 } <= 2
    }

    // MARK: Images

    mutating func mend(_ target: Target, _ faults: [String]) throws {
        if case .named(let id) = target.kind { return try mend(named: target.name, id) }
        guard let digest = target.digest else { return }
        let isWhole = try known[digest] ?? (faults.isEmpty && isWhole(digest))
        var result = RepairedImage(name: target.name, manifestDigest: digest, wasWhole: isWhole, isWhole: isWhole)
        if !isWhole {
            options.observer?(.mending(image: target.name))
            do {
                try store(target, digest)
                if !options.isDryRun {
                    if let fault = try fault(of: digest) { throw RepairError.stillDamaged(image: target.name, fault) }
                    result.isWhole = true
                }
            } catch {
                // Nothing more can be written for any image.
                if case RepositoryError.readOnly = error { throw error }
                try options.cancellation.check()
                result.failure = error
            }
        }
        known[digest] = result.isWhole
        report.images.append(result)
    }

    private func isWhole(_ digest: ContentDigest) throws -> Bool {
        guard let image = try readable(digest) else { return false }
        return try store.isWhole(image)
    }

    /// Nil if there is no such image, or it is damaged. A fault of the device is thrown, so that it is named: the check has found no damage, or the
    /// image was just stored again.
    private func readable(_ digest: ContentDigest) throws -> StoredImage? {
        do {
            return try store.image(digest)
        } catch RepositoryError.system(let fault) {
            throw RepositoryError.system(fault)
        } catch {
            return nil
        }
    }

    /// The first finding of the check of an image that was stored again.
    private func fault(of digest: ContentDigest) throws -> String? {
        guard try isWhole(digest) else { return "objects are still missing or damaged" }
        return try store.check(ByteString(digest.description)).problems.first { !$0.image.hasPrefix(ReferrerRecord.prefix) }?.description
    }

    private mutating func mend(named name: ByteString, _ id: ObjectID) throws {
        var isWhole = try isWhole(named: id)
        var result = RepairedImage(name: name, manifestDigest: nil, wasWhole: isWhole, isWhole: isWhole)
        if !isWhole, try repository.isIntact(id), try !store.hasIntactImage(id) {
            if !options.isDryRun {
                _ = try repository.linkImage(id)
                try repository.publish(Repository.Publication())
            }
            let hex = ByteString(id.hex)
            did(.linkWritten(path: "images/" + hex, target: "objects/" + ByteString(id.objectPath)))
            isWhole = try self.isWhole(named: id)
        }
        result.isWhole = isWhole
        if !isWhole { result.failure = RepairError.notRebuildable(image: name) }
        report.images.append(result)
    }

    private func isWhole(named id: ObjectID) throws -> Bool {
        guard try store.hasIntactImage(id), let objects = try? repository.imageObjects(id) else { return false }
        return try repository.faulty(objects).isEmpty
    }

    // MARK: Storing again

    private mutating func store(_ target: Target, _ digest: ContentDigest) throws {
        let sources = options.sources(target.recorded, target.name, digest)
        if options.isDryRun { return try plan(target, digest, sources) }
        if case .tag = target.kind, let other = options.repository, let image = (try? other.image(digest)) ?? nil {
            if (try? copyImage(image, from: other, named: target.name, into: store)) != nil {
                return did(.fetched(image: target.name, from: other.repository.path, layers: nil))
            }
        }
        let documents = try findDocuments(target, digest)
        try relink(target, documents)
        var reasons: [String] = []
        for origin in sources.map(Optional.some) + (sources.isEmpty ? [nil] : []) {
            let source = RepairImageSource(
                target.name, digest, manifest: documents.manifest?.bytes, documents: documents.configs, from: origin)
            do {
                let layers = try pull(target, digest, source, keepsBlobs: keepsBlobs(target, digest, documents))
                did(
                    source.isOpened
                        ? .fetched(image: target.name, from: origin?.name ?? "", layers: layers) : .regenerated(image: target.name))
                return
            } catch {
                // The store's own fault: no other source helps, and what was written may be lost.
                if case RepositoryError.system = error { throw error }
                if sources.isEmpty { throw Self.cause(error) }
                reasons.append("\(origin?.name.withoutSecrets ?? ""): \(error)")
            }
        }
        throw RepairError.unavailable(image: target.name, reasons: reasons)
    }

    /// The reason for a layer that cannot be fetched: its source is unknown.
    private static func cause(_ error: any Error) -> any Error {
        if case PullError.layer(_, _, _, let cause) = error, cause is RepairError { return cause }
        return error
    }

    private struct Documents {
        var manifest: Manifest?
        var configs: [ContentDigest: [UInt8]] = [:]
        var layers: [ContentDigest] = []
    }

    private mutating func findDocuments(_ target: Target, _ digest: ContentDigest) throws -> Documents {
        var found = Documents()
        let image = (try? store.image(digest)) ?? nil
        if let manifest = image?.manifest ?? target.image?.manifest {
            found.manifest = manifest
        } else if let bytes = try readCatalog().document(digest) {
            found.manifest = try? Manifest(parsing: bytes)
        }
        guard let manifest = found.manifest else { return found }
        let config =
            try image?.configBytes ?? target.image?.configBytes ?? store.storedConfig(manifest.config.digest)
            ?? readCatalog().document(manifest.config.digest)
        if let config {
            found.configs[manifest.config.digest] = config
            found.layers = (try? manifest.imageConfig(from: config))?.diffIDs ?? manifest.layers.map(\.digest)
        }
        return found
    }

    mutating func readCatalog() throws -> StoreCatalog {
        if let catalog { return catalog }
        let made = try StoreCatalog(store)
        catalog = made
        return made
    }

    /// Creates the links of stored layers again if they are missing or lead to other objects.
    private mutating func relink(_ target: Target, _ documents: Documents) throws {
        let lost = try documents.layers.filter { layer in
            guard let linked = try store.usableStream(StreamName.layer(layer)) else { return true }
            return try !repository.isIntact(linked)
        }
        guard !lost.isEmpty else { return }
        for name in try readCatalog().relinkLayers(lost) {
            guard let stream = try store.usableStream(name) else { continue }
            did(.linkWritten(path: "streams/" + name, target: "objects/" + ByteString(stream.objectPath)))
        }
    }

    /// Whether the image kept the blobs of its layers. If the manifest's stream is lost, the blobs' streams show it; if the document is lost, the
    /// manifest's stream does.
    private func keepsBlobs(_ target: Target, _ digest: ContentDigest, _ documents: Documents) throws -> Bool {
        if let image = target.image { return !image.keptBlobs.isEmpty }
        if let stream = try store.usableStream(StreamName.manifest(digest)), let reader = try? repository.openStream(stream) {
            return !ReferenceKey.blobs(in: reader.namedReferences).isEmpty
        }
        return try documents.manifest?.layers.contains { try store.usableStream(StreamName.blob($0.digest)) != nil } ?? false
    }

    /// - Returns: the number of layers that were read.
    private func pull(
        _ target: Target, _ digest: ContentDigest, _ source: RepairImageSource, keepsBlobs: Bool
    ) throws -> Int {
        var pull = PullOptions()
        pull.policy = .always
        pull.name = target.name
        pull.limits = .unlimited
        pull.cancellation = options.cancellation
        pull.keepsBlobs = keepsBlobs
        pull.recordedReference = target.recorded
        if let observer = options.observer { pull.observer = { observer(.pull($0)) } }
        switch target.kind {
        case .named: return 0
        case .tag:
            let result = try pullImage(from: source, into: repository, pull)
            try keepImages(of: target, digest)
            return result.newLayers
        case .listed, .referrer:
            let resolved = try resolveManifest(source, platform: .host, limits: pull.limits)
            let puller = ImagePull(source: source, repository: repository, options: pull, reporter: PullReporter(nil))
            guard case .referrer(let subject) = target.kind else {
                let result = try puller.takeListed(resolved)
                try keepImages(of: target, digest)
                return result.newLayers
            }
            return try repository.storeAsOne {
                let config = try puller.readConfig(resolved.manifest.config)
                var publication = Repository.Publication()
                ImageStore.record(digest, of: subject, in: &publication)
                return try puller.storeArtifact(
                    resolved.manifest, digest, config, tag: nil, publication, PullReporter(nil)
                ).0.new
            }
        }
    }

    /// EROFS images that the image had and a pull does not create: those for booting, and those of formats that are no longer among the
    /// repository's.
    private func keepImages(of target: Target, _ digest: ContentDigest) throws {
        guard let before = target.image, let now = try store.image(digest), now.isContainer else { return }
        let lacks = before.bootImages.map(\.id) + [before.imageID(.v2), before.imageID(.v1)].compactMap(\.self)
        guard !Set(lacks).isSubset(of: now.allImageIDs) else { return }
        try repository.storeAsOne {
            let layers = try store.layers(of: now)
            var publication = Repository.Publication()
            var images = now.imageIDs
            for version in [ErofsVersion.v1, .v2] where images[version] == nil {
                guard let old = before.imageID(version) else { continue }
                if try !store.hasIntactImage(old) {
                    let plan = try ErofsPlan(store.tree(of: now), version: version)
                    guard plan.identifier(repository.algorithm) == old else { continue }
                    publication.image(try store.storeImage(plan))
                }
                images[version] = old
            }
            var boot = store.bootReferences([], try store.makeBootImages(of: layers, like: before, &publication))
            for old in before.bootImages where try !boot.contains(where: { $0.key == old.key }) && store.hasIntactImage(old.id) {
                boot.append(old)
            }
            try store.publish(
                manifest: now.manifest, digest: digest, config: now.configBytes, layers: layers.map { ($0.diffID, $0.stream) },
                images: images,
                boot: boot, tag: target.isTag ? target.name : nil, source: target.recorded, publication)
        }
    }

    private mutating func plan(_ target: Target, _ digest: ContentDigest, _ sources: [RepairSource]) throws {
        if let other = options.repository, (try? other.image(digest)) ?? nil != nil {
            return did(.fetched(image: target.name, from: other.repository.path, layers: nil))
        }
        let documents = try findDocuments(target, digest)
        let lost = try documents.layers.filter { layer in
            guard let stream = try store.usableStream(StreamName.layer(layer)) else { return true }
            let type = target.image?.isContainer == false ? StreamContentType.blob : StreamContentType.layer
            return try !store.isWhole(stream, type)
        }
        if documents.manifest != nil, !documents.configs.isEmpty, lost.isEmpty { return did(.regenerated(image: target.name)) }
        guard let origin = sources.first else { throw RepairError.noSource(image: target.name) }
        did(.fetched(image: target.name, from: origin.name, layers: documents.layers.isEmpty ? nil : lost.count))
    }

    // MARK: Remains

    private mutating func lookForDangling() throws {
        let found = try repository.check(metadataOnly: true).problems.filter { $0.kind == .brokenSymlink }.map(\.path)
        // References first: an entry without references is garbage.
        for path in found.sorted(by: { !isEntry($0) && isEntry($1) }) {
            guard options.prunesDangling else {
                report.dangling.append(path)
                continue
            }
            if !options.isDryRun { try repository.removeLink(path) }
            did(.danglingRemoved(path: path))
        }
    }

    private mutating func removeTemporaries() throws {
        let all = try repository.temporaries()
        guard !all.isEmpty else { return }
        guard let removed = options.isDryRun ? all : try repository.removeTemporaries() else {
            report.isBusy = true
            return
        }
        for path in removed { did(.temporaryRemoved(path: path)) }
    }
}
