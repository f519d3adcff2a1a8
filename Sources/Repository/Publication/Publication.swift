public import ComposefsBytes
public import ComposefsHashing
internal import Synchronization

// Why each sync is where it is, and what a failed sync means.
//
// 1. The order. Objects are written and named without any sync. `publish` then makes the file system durable once (syncfs), links images,
//    syncs `images/`, links streams in the given order (layers, config, manifest), syncs `streams/`, links references and syncs their
//    directories. So at every moment, for every other process and after every power cut: a reference leads to a stream, a manifest to its
//    config, layers and images, and all of them to complete objects. Images are linked before the streams because a manifest that exists
//    states that its image can be mounted.
//
// 2. What a sync proves. The kernel reports a writeback error once to each open file description that was open when the error happened
//    (errseq_t), and to later ones only if it has not been reported yet. It does not keep the data: the pages are marked clean, the cache
//    continues to return the right bytes to every reader, and the next sync has nothing left to write and succeeds. So
//    - a successful sync proves what any process wrote since the handle opened its descriptor of the root; it proves nothing about earlier
//      writes, because the error may have been reported to another process;
//    - after a failed sync, nothing that was written since the last successful one is relied on. Repeating the sync proves nothing.
//
// 3. How that is recorded. Before its first write a handle makes a marker (Staging.swift) and holds it locked. It is removed in one place
//    only, after a sync has succeeded for everything that the handle has written. Nothing has to be written when a sync fails or when the
//    program is killed: the marker exists already, and a disk that has lost it has lost the later names, too. Links count as written data:
//    a tag makes a marker, too.
//
// 4. The next handle finds a marker that no process holds, or one of another boot, and does not rely on any object from that time on. It
//    syncs, reads those objects from the device (Recovery.swift), removes objects whose content does not match their name and everything
//    that is staged, and makes the links of that time again. Only after another successful sync is the marker removed. If other handles use
//    the repository nothing is removed; then each object is read from the device before it is used, and replaced if it is damaged. The same
//    applies to the handle whose own sync failed.
//
// 5. Handles at the same time. A handle's sync proves what other handles write while it is open, see 2. It does not prove what they had
//    written before, while their markers existed: only their own sync does, which removes the marker. So existing objects are recorded as
//    long as there are such markers. If one still exists after our sync, those objects are read from the device before anything that leads
//    to them is published.
//
// The same holds outside of repositories. A layout's blob is synced through the descriptor that wrote it, before it gets its name; a blob
// that existed before is read from the device (Transports, LayoutDestination.swift). Archives and `meta.json` are written again when a sync
// fails.

extension Repository {
    /// Streams, images and references that become visible in one durable step.
    public struct Publication: Sendable {
        struct Link: Sendable {
            var name: ByteString
            var target: ByteString
        }

        var streams: [(name: ByteString, id: ObjectID)] = []
        var images: [ObjectID] = []
        var references: [Link] = []

        public init() {}

        /// Everything of another publication, after what this one has.
        public mutating func add(_ other: Publication) {
            streams += other.streams
            images += other.images
            references += other.references
        }

        /// `streams/<name>` will lead to the object. Streams appear in the order in which they are added: first those that others refer to.
        public mutating func stream(_ name: ByteString, _ id: ObjectID) { streams.append((name, id)) }

        /// `images/<id>` will lead to the object.
        public mutating func image(_ id: ObjectID) { images.append(id) }

        /// `images/refs/<name>` will lead to `images/<id>`, which is published too.
        public mutating func imageReference(_ name: ByteString, _ id: ObjectID) {
            image(id)
            references.append(Link(name: Layout.imageReferences + "/" + name, target: Layout.images + "/" + ByteString(id.hex)))
        }

        /// `streams/refs/<path>` will lead to `streams/<stream>`. The path may contain slashes.
        public mutating func streamReference(_ path: ByteString, to stream: ByteString) {
            references.append(Link(name: Layout.streamReferences + "/" + path, target: Layout.streams + "/" + stream))
        }
    }

    /// Makes objects durable and then visible: a name refers at every moment to content that was complete on the disk before.
    ///
    /// This is the only durability point. Staged streams with the published names are removed from staging.
    public func publish(_ publication: Publication) throws(RepositoryError) {
        try requireWritable()
        try check(publication)
        // Links are written data, too, so the marker is made before them.
        try beginStoring()
        do throws(RepositoryError) {
            try publishStored(publication)
        } catch {
            endStoring()
            throw error
        }
        endStoring()
        retireMarker()
    }

    private func publishStored(_ publication: Publication) throws(RepositoryError) {
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
            let name = ByteString(Array(reference.name.bytes.dropFirst(prefix.count + 1)))
            try Layout.checkReferenceName(name)
            guard isStream || !(name + "/").hasPrefix(Layout.leaseDirectory + "/") else {
                throw .invalidName(name, .leases)
            }
            try Layout.checkEntryName(
                ByteString(Array(reference.target.bytes.dropFirst((isStream ? Layout.streams : Layout.images).count + 1))))
        }
    }

    private func makeVisible(_ publication: Publication) throws(RepositoryError) {
        // Directories first, so that the sync below makes their names durable, too, and only the links remain to be synced.
        var directories: Set<ByteString> = []
        if !publication.streams.isEmpty { directories.insert(Layout.streams) }
        if !publication.images.isEmpty { directories.insert(Layout.images) }
        for reference in publication.references { directories.formUnion(Self.parents(of: reference.name)) }
        for directory in directories.sorted() { try makeDirectory(directory, mode: 0o755) }

        // All objects, with content and names, before any link to them. One sync of the file system costs less than one for every file.
        try sync()
        try proveReused()
        try checkComplete(publication)

        // Each kind before the kind that leads to it: a manifest that survives has its images, and a tag its manifest.
        for id in publication.images { try writeLink(Layout.images + "/" + ByteString(id.hex), to: Layout.objectPath(id)) }
        if !publication.images.isEmpty { try syncDirectory(Layout.images) }
        for (name, id) in publication.streams { try writeLink(Layout.streams + "/" + name, to: Layout.objectPath(id)) }
        if !publication.streams.isEmpty { try syncDirectory(Layout.streams) }

        for reference in publication.references { try writeLink(reference.name, to: reference.target) }
        // The references, because the caller will report that they exist.
        for directory in Set(publication.references.compactMap { Self.parents(of: $0.name).last }).sorted() {
            try syncDirectory(directory)
        }
    }
}
