public import ComposefsBytes
public import ComposefsHashing
internal import Synchronization

// Why each sync is where it is, and what a sync that fails means.
//
// 1. The order. Objects are written and named without any sync. `publish` then makes the file system durable once (syncfs), links images,
//    syncs `images/`, links streams in the order in which they were given (layers, config, manifest), syncs `streams/`, links references and
//    syncs their directories. So at every moment, for every other process and after every power cut: a reference leads to a stream, a
//    manifest to its config, layers and images, and all of them to whole objects. An image's link comes before the streams because a
//    manifest that is there says that its image can be mounted.
//
// 2. What a sync tells. The kernel reports an error of writing back once to each open file description that was open when the error
//    happened (errseq_t), and to later ones only if nobody has been told yet. It does not keep the data: the pages are marked clean, the
//    cache goes on giving the right bytes to every reader, and the next sync has nothing left to write and succeeds. So
//    - a sync that succeeds proves what was written since the handle's descriptor of the root was opened, by whom ever; it says nothing
//      of what was written before that, because somebody else may have been told;
//    - a sync that fails is the end of everything that was written since the last good one. Repeating it proves nothing.
//
// 3. How that is remembered. Before its first write a handle makes a marker (Staging.swift) and holds it locked. It is removed in one place
//    only, after a sync has succeeded for all that the handle has written. Nothing need be written when a sync fails, or when the program is
//    killed: the marker is there already, and a disk that has lost it has lost the later names too. Links count as written data: a tag makes a
//    marker too.
//
// 4. Who comes next finds a marker without a holder, or one of another boot, and believes no object from that time on. It syncs, reads
//    those objects from the device (Recovery.swift), removes what is not what its name says, with all that is staged, and makes the links of
//    that time anew. Only after another good sync the marker goes. If others use the repository nothing is removed; then each object is read
//    from the device before it is made use of, and replaced where it is bad. The same goes for the handle whose own sync failed.
//
// 5. Who is at work at the same time. What others write while this handle is open, its own sync proves, see 2. What those had written
//    before, whose markers were there when this handle began, it does not prove: only their own sync does, and takes the marker away. So
//    objects that were there already are noted while there are such markers, and if one is still there after our sync, those objects are
//    read from the device before anything that leads to them is published.
//
// The same holds outside of repositories. A layout's blob is synced through the descriptor that wrote it, before it gets its name; one that
// was there already is read from the device (OCI, LayoutDestination.swift). Archives and `meta.json` are written anew when a sync fails.

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

        /// `streams/<name>` leads to the object. Streams appear in the order in which they are added: first what others refer to.
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
        // Links are written data, too: the marker comes before them.
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
        try proveReused()
        try checkComplete(publication)

        // Each kind before what leads to it: a manifest that survives has its images, a tag its manifest.
        for id in publication.images { try writeLink(Layout.images + "/" + ByteString(id.hex), to: Layout.objectPath(id)) }
        if !publication.images.isEmpty { try syncDirectory(Layout.images) }
        for (name, id) in publication.streams { try writeLink(Layout.streams + "/" + name, to: Layout.objectPath(id)) }
        if !publication.streams.isEmpty { try syncDirectory(Layout.streams) }

        for reference in publication.references { try writeLink(reference.name, to: reference.target) }
        // The references, because the caller will say that they are there.
        for directory in Set(publication.references.compactMap { Self.parents(of: $0.name).last }).sorted() {
            try syncDirectory(directory)
        }
    }
}
