package import ComposefsBytes
public import ComposefsHashing
package import ComposefsRepository

/// Referrers: artifacts recorded as belonging to a subject. A record keeps the artifact alive.
extension ImageStore {
    private static let directory: ByteString = "oci-referrers"

    private static func path(_ subject: ContentDigest, _ artifact: ContentDigest) -> ByteString {
        directory + "/" + ByteString(subject.description) + "/" + ByteString(artifact.description)
    }

    /// The artifacts that are recorded for a subject and whose manifests are in the store, in ascending order.
    public func referrers(of subject: ContentDigest) throws -> [ContentDigest] {
        try repository.streamReferences(under: Self.directory + "/" + ByteString(subject.description)).compactMap { reference in
            guard let text = reference.name.utf8Text, let artifact = ContentDigest(text), reference.entry == StreamName.manifest(artifact),
                try repository.stream(reference.entry) != nil
            else { return nil }
            return artifact
        }.sorted()
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
        publication.streamReference(path(subject, artifact), to: StreamName.manifest(artifact))
    }

    /// Removes a record, durably.
    ///
    /// - Throws: `ImageStoreError.noSuchReferrer` if there is none.
    public func removeReferrer(_ artifact: ContentDigest, of subject: ContentDigest) throws {
        guard try repository.removeStreamReference(Self.path(subject, artifact)) else {
            throw ImageStoreError.noSuchReferrer(subject: subject, artifact: artifact)
        }
    }

    /// Removes all records of a subject, readable or not; returns how many there were.
    @discardableResult
    public func removeReferrers(of subject: ContentDigest) throws -> Int {
        let directory = Self.directory + "/" + ByteString(subject.description)
        var removed = 0
        for reference in try repository.streamReferences(under: directory) {
            if try repository.removeStreamReference(directory + "/" + reference.name) { removed += 1 }
        }
        return removed
    }

    /// The records, as references below `streams/refs/`, that no image needs: their subject is not in the store, or only such a record
    /// keeps it.
    ///
    /// - Parameters:
    ///   - without: tags, as references, that are ignored.
    ///   - kept: streams of manifests that are needed though no reference keeps them.
    package func unneededReferrers(without: Set<ByteString> = [], kept: Set<ByteString> = []) throws -> [ByteString] {
        let prefix = Self.directory + "/"
        var live = kept
        var records: [(name: ByteString, subject: ByteString, artifact: ByteString)] = []
        for reference in try repository.streamReferences() where !without.contains(reference.name) {
            if reference.name.hasPrefix(prefix) {
                let parts = reference.name.bytes.split(separator: UInt8(ascii: "/"))
                guard parts.count == 3, let subject = ByteString(Array(parts[1])).utf8Text.flatMap({ ContentDigest($0) }) else { continue }
                records.append((reference.name, StreamName.manifest(subject), reference.entry))
            } else if try repository.stream(reference.entry) != nil {
                live.insert(reference.entry)
            }
        }
        // An artifact may have referrers of its own.
        var found = true
        while found {
            found = false
            records.removeAll { record in
                guard live.contains(record.subject) else { return false }
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
        for reference in try repository.streamReferences(under: Self.directory) {
            guard let subject = reference.name.bytes.split(separator: UInt8(ascii: "/")).first,
                let digest = ByteString(Array(subject)).utf8Text.flatMap({ ContentDigest($0) }),
                try repository.stream(StreamName.manifest(digest)) == nil
            else { continue }
            if try repository.removeStreamReference(Self.directory + "/" + reference.name) { removed += 1 }
        }
        return removed
    }
}
