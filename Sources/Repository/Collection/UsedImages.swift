internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsSplitStream

extension Repository {
    /// Adds what images in use need: the image with the objects of its files, and the streams that refer to it, so that it can be tagged, pushed and
    /// generated again as long as it is in use.
    func keepUsed(
        _ uses: ImageUses, _ inventory: Inventory, _ streamObjects: Set<ObjectID>, _ walked: inout Set<ObjectID>,
        _ live: inout Set<ObjectID>, _ report: inout GarbageReport
    ) throws(RepositoryError) {
        live.formUnion(uses.objects)
        // Image IDs decide, not links in `images/`: an image without its link can be in use.
        let used = uses.images.keys.filter { inventory.objects[$0] != nil }.sorted()
        let possible = uses.unidentified.isEmpty ? [] : inventory.images.compactMap(\.id).filter { inventory.objects[$0] != nil }.sorted()
        var nameless: Set<ObjectID> = []
        for id in used + possible {
            if live.insert(id).inserted {
                nameless.insert(id)
                if let uses = uses.images[id] {
                    report.imagesInUse.append(ImageInUse(id: id, uses: uses))
                } else {
                    report.imagesKeptForMounts.append(id)
                    report.unidentifiedMounts = uses.unidentified
                }
            } else if uses.images[id] == nil {
                // What keeps it keeps its files.
                continue
            }
            do throws(RepositoryError) {
                if try beginsLikeImage(id) {
                    live.formUnion(try imageObjects(id))
                } else {
                    // If its beginning is damaged, its files are unknown.
                    _ = try openObject(id)
                }
            } catch {
                // An intact object that is not an image is kept, and has no files.
                switch error {
                case .image, .objectTooLarge: continue
                default:
                    throw .unreadableRoot(
                        Layout.objectPath(id),
                        uses.images[id].map { .imageInUse(error, $0) } ?? .imagePossiblyInUse(error, uses.unidentified))
                }
            }
        }
        guard !nameless.isEmpty else { return }
        let byName = inventory.streamsByName
        try walk(streams(leadingTo: nameless, inventory, byName, walked), streamObjects, byName, &walked, &live)
    }

    /// Named streams that refer to one of these images, and those that refer to such streams: configs, and their manifests. Streams that were walked
    /// already are left out, and so are streams that cannot be read. A reference that has the name of a stream is not followed: an index lists the
    /// images of other platforms, too, and the image in use does not need it.
    private func streams(
        leadingTo images: Set<ObjectID>, _ inventory: Inventory, _ byName: [ByteString: ObjectID], _ walked: Set<ObjectID>
    ) -> [(name: ByteString, id: ObjectID)] {
        var rest: [(name: ByteString, id: ObjectID, references: [ObjectID])] = []
        for link in inventory.streams {
            guard let id = link.id, !walked.contains(id) else { continue }
            do throws(RepositoryError) {
                let named = try StreamReferences(openStream(id)).named.filter { byName[ByteString($0.name)] == nil }
                rest.append((Layout.streams + "/" + link.name, id, named.map(\.id)))
            } catch {
                continue
            }
        }
        var targets = images
        var found: [(name: ByteString, id: ObjectID)] = []
        var isGrowing = true
        while isGrowing {
            isGrowing = false
            rest.removeAll { stream in
                guard stream.references.contains(where: { targets.contains($0) }) else { return false }
                targets.insert(stream.id)
                found.append((stream.name, stream.id))
                isGrowing = true
                return true
            }
        }
        return found
    }
}
