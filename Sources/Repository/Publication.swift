public import ComposefsBytes
public import ComposefsHashing
internal import Synchronization

extension Repository {
    /// What becomes visible in one durable step.
    public struct Publication: Sendable {
        struct Link: Sendable {
            var name: ByteString
            var target: ByteString
        }

        var streams: [(name: ByteString, id: ObjectID)] = []
        var images: [ObjectID] = []
        var references: [Link] = []

        public init() {}

        /// `streams/<name>` leads to the object.
        public mutating func stream(_ name: ByteString, _ id: ObjectID) { streams.append((name, id)) }

        /// `images/<id>` leads to the object.
        public mutating func image(_ id: ObjectID) { images.append(id) }

        /// `images/refs/<name>` leads to `images/<id>`, which is published too.
        public mutating func imageReference(_ name: ByteString, _ id: ObjectID) {
            image(id)
            references.append(Link(name: Layout.imageReferences + "/" + name, target: Layout.images + "/" + ByteString(id.hex)))
        }

        /// `streams/refs/<path>` leads to `streams/<stream>`. The path may hold slashes.
        public mutating func streamReference(_ path: ByteString, to stream: ByteString) {
            references.append(Link(name: Layout.streamReferences + "/" + path, target: Layout.streams + "/" + stream))
        }
    }

    /// Makes objects durable and then visible: what has a name after this was complete on the disk before it got it, at every moment.
    ///
    /// The only durability point there is. Streams that were staged under the published names are forgotten.
    public func publish(_ publication: Publication) throws(RepositoryError) {
        try requireWritable()
        try check(publication)
        let abandoned = try abandonedMarkers()
        activity.isUnsynced.store(false, ordering: .sequentiallyConsistent)
        do throws(RepositoryError) {
            try makeVisible(publication)
        } catch {
            activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
            throw error
        }
        removeMarkers(abandoned)
        try clearStaged(publication.streams.map(\.name))
        retireMarker()
    }

    private func check(_ publication: Publication) throws(RepositoryError) {
        for (name, id) in publication.streams {
            try Layout.checkEntryName(name)
            guard id.algorithm == algorithm else { throw .algorithmMismatch(found: algorithm, expected: id.algorithm) }
        }
        for id in publication.images where id.algorithm != algorithm {
            throw .algorithmMismatch(found: algorithm, expected: id.algorithm)
        }
        for reference in publication.references {
            let isStream = reference.name.hasPrefix(Layout.streamReferences)
            let prefix = isStream ? Layout.streamReferences : Layout.imageReferences
            try Layout.checkReferenceName(ByteString(Array(reference.name.bytes.dropFirst(prefix.count + 1))))
            try Layout.checkEntryName(
                ByteString(Array(reference.target.bytes.dropFirst((isStream ? Layout.streams : Layout.images).count + 1))))
        }
    }

    private func makeVisible(_ publication: Publication) throws(RepositoryError) {
        // Directories first, so that the sync below makes their own names durable too and only the links remain to be synced.
        var directories: Set<ByteString> = []
        if !publication.streams.isEmpty { directories.insert(Layout.streams) }
        if !publication.images.isEmpty { directories.insert(Layout.images) }
        for reference in publication.references { directories.formUnion(Self.parents(of: reference.name)) }
        for directory in directories.sorted() { try makeDirectory(directory, mode: 0o755) }

        // All objects, with content and names, before anything leads to them. One sync of the file system costs less than one of every file.
        try sync()

        for (name, id) in publication.streams { try writeLink(Layout.streams + "/" + name, to: Layout.objectPath(id)) }
        for id in publication.images { try writeLink(Layout.images + "/" + ByteString(id.hex), to: Layout.objectPath(id)) }
        // The links, before a reference leads to them: a tag that survives must not dangle.
        if !publication.streams.isEmpty { try syncDirectory(Layout.streams) }
        if !publication.images.isEmpty { try syncDirectory(Layout.images) }

        for reference in publication.references { try writeLink(reference.name, to: reference.target) }
        // The references, because the caller will say that they are there.
        for directory in Set(publication.references.compactMap { Self.parents(of: $0.name).last }).sorted() {
            try syncDirectory(directory)
        }
    }
}
