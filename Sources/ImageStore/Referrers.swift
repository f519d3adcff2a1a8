package import ComposefsBytes
public import ComposefsHashing
import ComposefsOCIModel
package import ComposefsRepository

/// Where records of referrers are below `streams/refs/`: `oci-referrers/SUBJECT/ARTIFACT`.
package enum ReferrerRecord {
    package static let directory: ByteString = "oci-referrers"
    package static let prefix: ByteString = "oci-referrers/"

    /// The directory of the referrers of a subject.
    package static func directory(of subject: ContentDigest) -> ByteString { prefix + ByteString(subject.description) }

    static func path(_ subject: ContentDigest, _ artifact: ContentDigest) -> ByteString {
        directory(of: subject) + "/" + ByteString(artifact.description)
    }

    /// The digests in the name of a record; nil if it is not of this form.
    package static func parse(_ name: ByteString) -> (subject: ContentDigest, artifact: ContentDigest)? {
        guard let (subject, last) = SubjectRecord.parse(name) else { return nil }
        return last.utf8Text.flatMap { ContentDigest($0) }.map { (subject, $0) }
    }
}

/// Referrers: artifacts recorded as belonging to a subject. A record keeps the artifact alive.
extension ImageStore {
    /// The artifacts that are recorded for a subject and whose manifests are in the store, in ascending order.
    public func referrers(of subject: ContentDigest) throws -> [ContentDigest] {
        try repository.streamReferences(under: ReferrerRecord.directory(of: subject)).compactMap { reference in
            guard let text = reference.name.utf8Text, let artifact = ContentDigest(text), reference.entry == StreamName.manifest(artifact),
                try repository.stream(reference.entry) != nil
            else { return nil }
            return artifact
        }.sorted()
    }

    /// A referrer and what its manifest says about it.
    public struct Referrer: Sendable, Hashable {
        public var subject: ContentDigest
        public var digest: ContentDigest
        /// Nil, like the following, if the manifest is damaged.
        public var mediaType: String?
        /// The size of the manifest in bytes.
        public var size: UInt64?
        /// The manifest's, or the type of its config.
        public var artifactType: String?
        public var annotations: [String: String] = [:]
    }

    /// The referrers of a subject in ascending order of their digests, each followed by its own referrers if they are asked for.
    ///
    /// - Parameters:
    ///   - artifactType: only referrers of this type; nil for all.
    ///   - isRecursive: also the referrers of referrers, of any type. Each is listed once, even if the records are circular.
    public func referrerDetails(
        of subject: ContentDigest, artifactType: String? = nil, isRecursive: Bool = false
    ) throws -> [Referrer] {
        var found: [Referrer] = []
        var seen: Set = [subject]
        var pending = try referrers(of: subject).reversed().map { (subject: subject, digest: $0) }
        while let next = pending.popLast() {
            guard seen.insert(next.digest).inserted else { continue }
            var referrer = Referrer(subject: next.subject, digest: next.digest)
            if let manifest = try? image(next.digest)?.manifest {
                referrer.mediaType = manifest.mediaType
                referrer.size = UInt64(manifest.bytes.count)
                referrer.artifactType = manifest.artifactType ?? manifest.config.mediaType
                referrer.annotations = manifest.annotations
            }
            if artifactType == nil || artifactType == referrer.artifactType { found.append(referrer) }
            if isRecursive { pending += try referrers(of: next.digest).reversed().map { (next.digest, $0) } }
        }
        return found
    }

    /// Records an artifact that is in the store; the subject need not be. Durable.
    ///
    /// - Throws: `ImageStoreError.noSuchImage` if the artifact is not in the store.
    public func addReferrer(_ artifact: ContentDigest, to subject: ContentDigest) throws {
        guard try repository.stream(StreamName.manifest(artifact)) != nil else {
            throw ImageStoreError.noSuchImage(ByteString(artifact.description))
        }
        var publication = Repository.Publication()
        Self.record(artifact, of: subject, in: &publication)
        try repository.publish(publication)
    }

    package static func record(_ artifact: ContentDigest, of subject: ContentDigest, in publication: inout Repository.Publication) {
        publication.streamReference(ReferrerRecord.path(subject, artifact), to: StreamName.manifest(artifact))
    }

    /// Removes a record, durably.
    ///
    /// - Throws: `ImageStoreError.noSuchReferrer` if there is none.
    public func removeReferrer(_ artifact: ContentDigest, of subject: ContentDigest) throws {
        guard try repository.removeStreamReference(ReferrerRecord.path(subject, artifact)) else {
            throw ImageStoreError.noSuchReferrer(subject: subject, artifact: artifact)
        }
    }

    /// Removes all records of a subject, readable or not; returns how many there were.
    @discardableResult
    public func removeReferrers(of subject: ContentDigest) throws -> Int {
        let directory = ReferrerRecord.directory(of: subject)
        var removed = 0
        for reference in try repository.streamReferences(under: directory) {
            if try repository.removeStreamReference(directory + "/" + reference.name) { removed += 1 }
        }
        return removed
    }

    /// The records of referrers and disks, as references below `streams/refs/`, that no image needs: their subject is not in the store, or only
    /// such a record keeps it.
    ///
    /// - Parameters:
    ///   - without: tags, as references, that are ignored.
    ///   - kept: streams of manifests that are needed though no reference keeps them.
    package func unneededRecords(without: Set<ByteString> = [], kept: Set<ByteString> = []) throws -> [ByteString] {
        var live = try kept.union(indexedStreams(without: without))
        // The subject is a manifest or an index.
        var records: [(name: ByteString, subject: ContentDigest, artifact: ByteString)] = []
        for reference in try repository.streamReferences() where !without.contains(reference.name) {
            if SubjectRecord.isRecord(reference.name) {
                guard let subject = SubjectRecord.parse(reference.name)?.subject else { continue }
                records.append((reference.name, subject, reference.entry))
            } else if try repository.stream(reference.entry) != nil {
                live.insert(reference.entry)
            }
        }
        // An artifact may have referrers of its own.
        var found = true
        while found {
            found = false
            records.removeAll { record in
                guard live.contains(StreamName.manifest(record.subject)) || live.contains(StreamName.blob(record.subject)) else {
                    return false
                }
                if live.insert(record.artifact).inserted { found = true }
                return true
            }
        }
        return records.map(\.name)
    }

    /// Removes the records of subjects that are not in the store; returns how many were removed.
    @discardableResult
    public func removeDanglingReferrers() throws -> Int {
        var removed = 0
        for reference in try repository.streamReferences(under: ReferrerRecord.directory) {
            guard let subject = reference.name.bytes.split(separator: UInt8(ascii: "/")).first,
                let digest = ByteString(Array(subject)).utf8Text.flatMap({ ContentDigest($0) }),
                try repository.stream(StreamName.manifest(digest)) == nil, try repository.stream(StreamName.blob(digest)) == nil
            else { continue }
            if try repository.removeStreamReference(ReferrerRecord.directory + "/" + reference.name) { removed += 1 }
        }
        return removed
    }
}
