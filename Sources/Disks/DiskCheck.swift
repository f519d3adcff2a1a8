package import ComposefsBytes
package import ComposefsHashing
package import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

extension ImageDisks {
    /// Checks the disks that the store keeps: that each record leads to the disk of its image, that the disk has the files of its kind, and that the
    /// images of layers belong to it. With `deep`, what the layers give now is compared with each file. `Repository.check` compares all objects with
    /// their names.
    ///
    /// - Parameter only: the image; nil for all.
    /// - Returns: the faults, and the number of records that were checked.
    package func check(_ only: ContentDigest? = nil, deep: Bool) throws -> (problems: [ImageProblem], checked: Int) {
        var problems: [ImageProblem] = []
        var checked = 0
        for reference in try repository.streamReferences(under: DiskRecord.directory) {
            guard let record = Record(reference) else {
                if only == nil {
                    let name = DiskRecord.prefix + reference.name
                    problems.append(
                        .init(kind: "disk-name", image: name, detail: "streams/refs/\(name) does not name an image by its digest"))
                }
                continue
            }
            guard only == nil || only == record.subject else { continue }
            checked += 1
            if let problem = problem(of: record, reference.target, deep) { problems.append(problem) }
        }
        return (problems, checked)
    }

    private func problem(of record: Record, _ target: ByteString, _ isDeep: Bool) -> ImageProblem? {
        func problem(_ kind: String, _ detail: String) -> ImageProblem { ImageProblem(kind: kind, image: record.name, detail: detail) }
        guard let found = DiskRecord.parse(stream: record.stream), found.key == record.key else {
            return problem("disk-mismatch", "streams/refs/\(record.name) leads to \(target), not to a disk of this kind")
        }
        do {
            guard let stream = try repository.stream(record.stream) else {
                return problem("disk-missing", "\(record.stream) is missing")
            }
            // One of another version is kept, but only that version knows what is in it. One whose image is missing is removed by the next prune.
            guard let request = DiskRequest(key: record.key), let image = try images.image(record.subject) else { return nil }
            guard let config = image.config, found.chainID == ContentDigest.chainID(of: config.diffIDs) else {
                return problem("disk-mismatch", "\(record.stream) is not a disk of this image's layers")
            }
            let disk = try read(request, found.chainID, config.diffIDs, stream)
            if let detail = try layerMismatch(disk, config.diffIDs, stream) { return problem("disk-mismatch", detail) }
            guard isDeep else { return nil }
            let layers = LayerStreams(try images.layers(of: image))
            let fresh = try DiskBuilder(images: images, request: request, layers: layers).run(into: IdentifierSink(repository: repository))
            for (file, new) in zip(disk.files, fresh.files) where new.object != file.object {
                return problem(
                    "disk-content",
                    "\(record.stream): \(file.name.isEmpty ? "the file" : file.name) is \(file.object), the layers give \(new.object?.hex ?? "")"
                )
            }
            guard disk.exceptions == fresh.exceptions else {
                return problem("disk-content", "\(record.stream): the layers have other exceptions than it says")
            }
            return nil
        } catch {
            return problem("disk-check-failed", "\(record.stream): \(error)")
        }
    }

    /// Makes each disk again that is damaged, if its image is intact.
    ///
    /// - Parameters:
    ///   - only: the image; nil for all.
    ///   - damaged: objects that were found damaged or missing.
    ///   - isDryRun: only report which disks would be made.
    /// - Returns: for each of them the record, and why it could not be made.
    package func repair(
        _ only: ContentDigest?, damaged: Set<ObjectID>, isDryRun: Bool
    ) throws -> [(record: ByteString, image: ContentDigest, failure: (any Error)?)] {
        try records(of: only).compactMap { record in
            guard let request = DiskRequest(key: record.key), try needsRepair(record, damaged) else { return nil }
            guard !isDryRun else { return (record.name, record.subject, nil) }
            do {
                guard let image = try images.image(record.subject) else {
                    throw ImageStoreError.noSuchImage(ByteString(record.subject.description))
                }
                try remake(request, of: image)
                return (record.name, record.subject, nil)
            } catch {
                return (record.name, record.subject, error)
            }
        }
    }

    private func needsRepair(_ record: Record, _ damaged: Set<ObjectID>) throws -> Bool {
        if problem(of: record, record.stream, false) != nil { return true }
        guard let stream = try repository.stream(record.stream) else { return false }
        return try damaged.contains(stream)
            || images.objects(ofStream: stream, StreamContentType.disk).map { !damaged.isDisjoint(with: $0.contents + $0.named) } ?? true
    }

    /// Makes a disk again, whatever the store has of it.
    private func remake(_ request: DiskRequest, of image: StoredImage) throws {
        let layers = LayerStreams(try images.layers(of: image))
        try repository.storeAsOne {
            var publication = Repository.Publication()
            let disk = try store(request, layers, DiskLimits(), &publication)
            publication.streamReference(DiskRecord.path(image.manifestDigest, request.key), to: disk.stream)
            try repository.publish(publication)
        }
    }

    /// Whether the named references of a disk lead to the images of its layers.
    private func layerMismatch(_ disk: KeptDisk, _ diffIDs: [ContentDigest], _ stream: ObjectID) throws -> String? {
        guard disk.request.kind.isDirectory else { return nil }
        let reader = try repository.openStream(stream, contentType: StreamContentType.disk)
        for (file, chainID) in zip(disk.files.suffix(diffIDs.count), ContentDigest.chainIDs(of: diffIDs)) {
            guard let id = reader.namedReference(chainID.description) else { return "\(disk.stream) has no reference to \(chainID)" }
            let image = try repository.openStream(id, contentType: StreamContentType.blob)
            guard image.objectReferences == [file.object] else {
                return "\(disk.stream): the image of layer \(chainID) is another object than \(file.name)"
            }
        }
        return nil
    }
}
