public import ComposefsBytes
import ComposefsHashing
public import ComposefsRepository

// An image is in use if one of its EROFS images is mounted, booted or deployed. An image may have several, one for each format and one for
// booting.
extension ImageStore {
    /// Throws if an image that is in use would have no name without these names. A name of an image with a further name may be removed.
    ///
    /// - Parameters:
    ///   - names: tags and names below `images/refs`; unknown names are ignored.
    ///   - uses: what is in use; nil asks for it.
    /// - Throws: `ImageStoreError.imageInUse`; `.useUnknown` if the system does not tell what is in use; `RepositoryError`.
    public func requireUnused(_ names: [ByteString], _ uses: ImageUses? = nil) throws {
        guard let first = names.first else { return }
        let uses = try uses ?? imageUses(for: first)
        if let unknown = uses.unknown.first {
            throw ImageStoreError.useUnknown(first, cause: RepositoryError.unknownUse(unknown.path, unknown.fault))
        }
        guard !uses.images.isEmpty || !uses.unidentified.isEmpty else { return }
        let removed = Set(names)
        let tags = try tags()
        let indexes = try namedIndexes()
        let references = try repository.imageReferences()
        func ids(ofIndex digest: ContentDigest) -> [ObjectID] { ((try? index(digest)) ?? nil).map { imageIDs(of: $0) } ?? [] }
        // Names of all kinds: a tag, with the index of that name, comes first.
        func ids(of name: ByteString) -> [ObjectID] {
            let image = tags.first { $0.name == name }.map { imageIDs(of: $0.manifestDigest) }
            let index = indexes.first { $0.name == name }.map { ids(ofIndex: $0.digest) }
            if image != nil || index != nil { return (image ?? []) + (index ?? []) }
            return references.first { $0.name == name }.flatMap { ObjectID(hex: $0.entry.bytes) }.map { [$0] } ?? []
        }
        for name in names {
            // A mount by a name is taken for one of the image that has the name now.
            let byName = uses.unidentified.filter { $0.mayMean(name) }
            let used = Set(ids(of: name).filter { uses.images[$0] != nil || !byName.isEmpty })
            guard !used.isEmpty else { continue }
            let isTag = tags.contains { $0.name == name } || indexes.contains { $0.name == name }
            var named: Set<ObjectID> = []
            for tag in tags where !removed.contains(tag.name) { named.formUnion(imageIDs(of: tag.manifestDigest)) }
            for index in indexes where !removed.contains(index.name) { named.formUnion(ids(ofIndex: index.digest)) }
            // A tag hides a name of the other kind, which is kept then.
            for reference in references where !removed.contains(reference.name) || (isTag && reference.name == name) {
                if let id = ObjectID(hex: reference.entry.bytes) { named.insert(id) }
            }
            if !used.isSubset(of: named) { throw ImageStoreError.imageInUse(name, uses.uses(of: used.sorted()) + byName.map(\.use)) }
        }
    }

    private func imageUses(for name: ByteString) throws(ImageStoreError) -> ImageUses {
        do throws(RepositoryError) {
            return try repository.imageUses()
        } catch {
            throw .useUnknown(name, cause: error)
        }
    }

    /// The EROFS images of a manifest; none if it cannot be read.
    func imageIDs(of manifest: ContentDigest) -> [ObjectID] {
        do { return try image(manifest)?.allImageIDs ?? [] } catch { return [] }
    }

    /// The names of the manifest streams whose images are in use.
    package func manifestsInUse(_ uses: ImageUses) throws -> Set<ByteString> {
        guard !uses.images.isEmpty || !uses.unidentified.isEmpty else { return [] }
        var found: Set<ByteString> = []
        for name in try repository.streamNames() {
            guard let digest = StreamName.digest(in: name, after: StreamName.manifestPrefix) else { continue }
            // Mounts whose image cannot be told may be of any image.
            if imageIDs(of: digest).contains(where: { uses.images[$0] != nil || !uses.unidentified.isEmpty }) { found.insert(name) }
        }
        return found
    }
}
