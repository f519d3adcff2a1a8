import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

// Indexes: the documents, and the images that they list and no tag names.
extension StoreRepair {
    /// The recorded sources of all named indexes: the hints are attributes of files that may be damaged.
    func indexSources() throws -> [ContentDigest: ByteString] {
        var found: [ContentDigest: ByteString] = [:]
        for named in try store.namedIndexes() {
            guard let stream = try store.usableStream(StreamName.blob(named.digest)) else { continue }
            found[named.digest] = SourceHint.text(on: [stream], in: repository)
        }
        return found
    }

    /// Repairs an index and the indexes in it, each before what it lists.
    mutating func mend(_ named: NamedIndex, _ recorded: ByteString?) throws {
        var result = RepairedImage(name: named.name, manifestDigest: named.digest, wasWhole: true, isWhole: true)
        let count = report.images.count
        var seen: Set<ContentDigest> = []
        var pending = [(digest: named.digest, isNamed: true)]
        do {
            while let next = pending.popLast() {
                guard seen.insert(next.digest).inserted else { continue }
                guard let index = try storedIndex(next.digest, named.name, recorded, isNamed: next.isNamed, &result) else { continue }
                for member in index.members where member.isStored || member.recorded != nil {
                    if member.isIndex {
                        pending.append((member.digest, false))
                    } else if known[member.digest] == nil {
                        try mend(target(.listed, named.name, member.digest), [])
                    }
                }
            }
        } catch {
            if case RepositoryError.readOnly = error { throw error }
            try options.cancellation.check()
            result.wasWhole = false
            result.isWhole = false
            result.failure = error
        }
        // The index stands for the images that only it keeps; those that were not intact have reported themselves.
        report.images.insert(result, at: count)
        let own = report.images[count...].filter { !($0.manifestDigest != named.digest && $0.wasWhole && $0.isWhole) }
        report.images.replaceSubrange(count..., with: own)
    }

    /// The index, which is stored again if it is not intact; nil in a dry run that would do so.
    private mutating func storedIndex(
        _ digest: ContentDigest, _ name: ByteString, _ recorded: ByteString?, isNamed: Bool, _ result: inout RepairedImage
    ) throws -> StoredIndex? {
        do {
            if let index = try store.index(digest) { return index }
        } catch RepositoryError.system(let fault) {
            throw RepositoryError.system(fault)
        } catch {}
        result.wasWhole = false
        result.isWhole = false
        options.observer?(.mending(image: name))
        let (index, origin) = try findIndex(digest, name, recorded)
        did(origin.map { .fetched(image: name, from: $0, layers: nil) } ?? .regenerated(image: name))
        if options.isDryRun { return nil }
        try repository.storeAsOne {
            var publication = Repository.Publication()
            try store.store(index, digest, name: isNamed ? name : nil, source: recorded, &publication)
            try repository.publish(publication)
        }
        result.isWhole = true
        return try store.index(digest)
    }

    /// The document of an index: from the objects of the repository, the other repository or a source; and the name of the source.
    private mutating func findIndex(
        _ digest: ContentDigest, _ name: ByteString, _ recorded: ByteString?
    ) throws -> (index: ImageIndex, origin: ByteString?) {
        if let bytes = try readCatalog().document(digest), let index = try? ImageIndex(parsing: bytes) { return (index, nil) }
        if let other = options.repository, let index = (try? other.index(digest)) ?? nil { return (index.index, other.repository.path) }
        let sources = options.sources(recorded, name, digest)
        guard !sources.isEmpty else { throw RepairError.noSource(image: name) }
        var reasons: [String] = []
        for source in sources {
            do {
                let documents = try readImageDocuments(source.open(), limits: .unlimited, options.cancellation)
                for document in documents where document.digest == digest {
                    if case .index(let index) = document.document { return (index, source.name) }
                }
                let found = documents.last?.digest ?? digest
                throw OCIError.notFound(source: source.name, .otherImage(found: found, wanted: digest))
            } catch {
                try options.cancellation.check()
                reasons.append("\(source.name.withoutSecrets): \(error)")
            }
        }
        throw RepairError.unavailable(image: name, reasons: reasons)
    }
}

extension StoreRepair.Target {
    var isTag: Bool { if case .tag = kind { true } else { false } }
}

extension ImageStore {
    /// The image that a name or digest stands for; nil if it stands only for an index.
    func resolveIfImage(_ text: ByteString) throws -> TaggedImage? {
        do { return try resolve(text) } catch ImageStoreError.onlyIndex { return nil }
    }
}
