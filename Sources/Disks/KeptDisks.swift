public import ComposefsBytes
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
package import ComposefsRepository
import ComposefsSplitStream

// Disks that a store keeps (Repo-Format.md, 7.6). Their files are objects, which machines open by their paths: several machines share one file and its
// pages in memory, and with fs-verity the kernel verifies each block that a machine reads.

/// A disk that a store keeps.
public struct KeptDisk: Sendable, Hashable, Codable {
    public struct File: Sendable, Hashable, Codable {
        /// The name that the file has in a directory; empty for a disk of one file.
        public var name: ByteString
        public var object: ObjectID
        /// Where machines open it. It must not be opened for writing.
        public var path: ByteString
        /// In bytes.
        public var size: UInt64
        /// The layer that the file holds.
        public var diffID: ContentDigest?
    }

    public var request: DiskRequest
    /// Identifies the layers.
    public var chainID: ContentDigest
    /// In the order of the disk: a descriptor, the merged image, then the layers from bottom to top.
    public var files: [File]
    /// What overlayfs cannot show of a stack.
    public var exceptions: StackExceptions

    /// Of their text, in bytes.
    static let exceptionLimit = 16 << 20

    var stream: ByteString { DiskRecord.stream(request.key, chainID) }
}

extension ImageDisks {
    /// A disk of an image that the store keeps; nil if there is none, or if an object of it is missing or damaged, as far as opening shows. With
    /// fs-verity, opening compares the kernel's digest of each file; without, contents are not read.
    ///
    /// - Throws: `ImageStoreError.isArtifact`; `DiskError` for a request that cannot be fulfilled; `RepositoryError` if the store cannot be read.
    public func kept(_ request: DiskRequest, of image: StoredImage) throws -> KeptDisk? {
        try request.check()
        guard let config = image.config else { throw ImageStoreError.isArtifact(image.manifestDigest) }
        return try kept(request, config.diffIDs)
    }

    /// Makes a disk of an image and keeps it in the store; one that is kept already is returned. The record of the image's disk keeps it until the
    /// record is removed, or a prune finds that the image is not kept any more.
    ///
    /// - Parameter observer: receives the steps, if the store does not keep the disk already. Called on the caller's thread.
    /// - Throws: as `make`.
    public func keep(
        _ request: DiskRequest, of image: StoredImage, observer: (@Sendable (DiskStep) -> Void)? = nil
    ) throws -> KeptDisk {
        var limits = DiskLimits()
        limits.observer = observer
        return try keep(request, of: image, limits)
    }

    package func keep(_ request: DiskRequest, of image: StoredImage, _ limits: DiskLimits) throws -> KeptDisk {
        try request.check()
        let layers = try images.layers(of: image)
        return try repository.storeAsOne {
            var publication = Repository.Publication()
            let disk = try keep(request, of: image.manifestDigest, LayerStreams(layers), limits, &publication)
            let record = try repository.streamReference(DiskRecord.path(image.manifestDigest, request.key))
            if disk.isNew || record?.entry != disk.disk.stream { try repository.publish(publication) }
            return disk.disk
        }
    }

    /// Makes a disk if the store does not keep it, and adds its streams and its record to `publication`.
    package func keep(
        _ request: DiskRequest, of manifest: ContentDigest, _ layers: LayerStreams, _ limits: DiskLimits,
        _ publication: inout Repository.Publication
    ) throws -> (disk: KeptDisk, isNew: Bool) {
        try request.check()
        let found = try kept(request, layers.diffIDs)
        if let found, let lost = try lostLayerLinks(of: found, layers.diffIDs) {
            for link in lost { publication.stream(link.name, link.image) }
            publication.streamReference(DiskRecord.path(manifest, request.key), to: found.stream)
            return (found, !lost.isEmpty)
        }
        let disk = try store(request, layers, limits, &publication)
        publication.streamReference(DiskRecord.path(manifest, request.key), to: disk.stream)
        return (disk, true)
    }

    /// The links to images of layers that a kept disk should have and that a power cut has taken; nil if an image is missing, too.
    private func lostLayerLinks(of disk: KeptDisk, _ diffIDs: [ContentDigest]) throws -> [(name: ByteString, image: ObjectID)]? {
        guard disk.request.kind.isDirectory, let stream = try images.usableStream(disk.stream) else { return [] }
        let reader = try repository.openStream(stream, contentType: StreamContentType.disk)
        var lost: [(name: ByteString, image: ObjectID)] = []
        for chainID in ContentDigest.chainIDs(of: diffIDs) {
            guard let image = reader.namedReference(chainID.description), try repository.objectSize(image) != nil else { return nil }
            let name = StreamName.layerImage(chainID)
            if try images.usableStream(name) == nil { lost.append((name, image)) }
        }
        return lost
    }

    func store(
        _ request: DiskRequest, _ layers: LayerStreams, _ limits: DiskLimits, _ publication: inout Repository.Publication
    ) throws -> KeptDisk {
        let chain = ContentDigest.chainIDs(of: layers.diffIDs)
        let sharesLayers = request.kind.isDirectory
        let existing = sharesLayers ? try layerImages(layers.diffIDs, chain) : [:]
        let sink = ObjectSink(
            repository: repository, existing: existing.mapValues(\.file), stored: limits.stored, cancellation: limits.cancellation)
        let made = try DiskBuilder(images: images, request: request, layers: layers, limits: limits).run(into: sink)
        let disk = KeptDisk(
            request: request, chainID: ContentDigest.chainID(of: layers.diffIDs), files: made.files.map(file),
            exceptions: made.exceptions)
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.disk)
        if sharesLayers {
            for (index, file) in disk.files.suffix(chain.count).enumerated() {
                let image = try existing[index]?.stream ?? storeLayerImage(file)
                publication.stream(StreamName.layerImage(chain[index]), image)
                stream.addNamedReference(chain[index].description, image)
            }
        }
        for file in disk.files { try stream.external(file.object, size: file.size) }
        guard disk.exceptions.byteCount <= KeptDisk.exceptionLimit else {
            throw DiskError.keptDisk(disk.stream, .exceptions(bytes: disk.exceptions.byteCount))
        }
        try disk.exceptions.withParts { try stream.inline($0) }
        publication.stream(disk.stream, try stream.finish().id)
        return disk
    }

    // MARK: Images of layers

    private func storeLayerImage(_ file: KeptDisk.File) throws -> ObjectID {
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try stream.external(file.object, size: file.size)
        return try stream.finish().id
    }

    /// The images of layers that the repository has, whole and verified, by the layers' indexes.
    private func layerImages(_ diffIDs: [ContentDigest], _ chain: [ContentDigest]) throws -> [Int: (file: MadeFile, stream: ObjectID)] {
        var found: [Int: (file: MadeFile, stream: ObjectID)] = [:]
        for (index, (diffID, chainID)) in zip(diffIDs, chain).enumerated() {
            guard let stream = try images.usableStream(StreamName.layerImage(chainID)),
                try images.isWhole(stream, StreamContentType.blob)
            else { continue }
            let reader = try repository.openStream(stream, contentType: StreamContentType.blob)
            guard reader.objectReferences.count == 1, let object = reader.objectReferences.first,
                let size = try repository.objectSize(object), size == reader.totalSize
            else { continue }
            found[index] = (
                MadeFile(name: DiskBuilder.layerName(index, diffID), size: size, diffID: diffID, object: object), stream
            )
        }
        return found
    }

    // MARK: Reading

    private func kept(_ request: DiskRequest, _ diffIDs: [ContentDigest]) throws -> KeptDisk? {
        let chainID = ContentDigest.chainID(of: diffIDs)
        guard let stream = try images.usableStream(DiskRecord.stream(request.key, chainID)) else { return nil }
        do {
            return try read(request, chainID, diffIDs, stream)
        } catch let error as RepositoryError {
            // What is damaged is made again.
            if case .system(let fault) = error, fault.errno != .inputOutput, fault.errno != .badMessage { throw error }
            return nil
        } catch is DiskError {
            return nil
        } catch is SplitStreamError {
            return nil
        }
    }

    /// - Throws: `DiskError.keptDisk` if the stream is not that of such a disk; `RepositoryError`.
    func read(_ request: DiskRequest, _ chainID: ContentDigest, _ diffIDs: [ContentDigest], _ id: ObjectID) throws -> KeptDisk {
        let name = DiskRecord.stream(request.key, chainID)
        var reader = try repository.openStream(id, contentType: StreamContentType.disk)
        let expected = DiskBuilder.fileNames(request.kind, diffIDs)
        var objects: [ObjectID] = []
        var text: [UInt8] = []
        while let part = try reader.next() {
            switch part {
            case .external(let object):
                guard text.isEmpty, objects.count < expected.count else { throw DiskError.keptDisk(name, .unexpectedContent) }
                objects.append(object)
            case .inline(let bytes):
                guard text.count + bytes.count <= KeptDisk.exceptionLimit else { throw DiskError.keptDisk(name, .unexpectedContent) }
                text += bytes
            }
        }
        guard objects.count == expected.count, let exceptions = StackExceptions(text: text) else {
            throw DiskError.keptDisk(name, .unexpectedContent)
        }
        var files: [KeptDisk.File] = []
        var total = UInt64(text.count)
        for (object, (fileName, diffID)) in zip(objects, expected) {
            let file = try repository.openObject(object, verify: repository.isSecure)
            let size = try file.status().size
            files.append(self.file(MadeFile(name: fileName, size: size, diffID: diffID, object: object)))
            total = total.saturatingAdd(size)
        }
        guard total == reader.totalSize else { throw DiskError.keptDisk(name, .size(found: total, expected: reader.totalSize)) }
        return KeptDisk(request: request, chainID: chainID, files: files, exceptions: exceptions)
    }

    private func file(_ made: MadeFile) -> KeptDisk.File {
        guard let object = made.object else { preconditionFailure("a file of the store is an object") }
        return KeptDisk.File(
            name: made.name, object: object, path: repository.path + "/objects/" + ByteString(object.objectPath), size: made.size,
            diffID: made.diffID)
    }
}

extension KeptDisk {
    /// The files that a machine or a mount is given: the descriptor or the only file; the images of layers from the lowest on.
    public var entryFiles: ArraySlice<File> { request.kind == .layered ? files[...] : files.prefix(1) }
}
