public import ComposefsBytes
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// Makes disks of stored images: as files anywhere, or as disks that the store keeps. The same layers give the same bytes, whatever repository they
/// are in.
public struct ImageDisks: Sendable {
    let images: ImageStore
    var repository: Repository { images.repository }

    public init(_ images: ImageStore) { self.images = images }

    /// Makes a disk of an image as a file or directory, and verifies every object on the way; an object whose blocks are shared with the output only if
    /// its file was changed since a pull verified it. A directory must not exist or be empty; a regular file is replaced. Nothing of the output is
    /// visible before all of it is durable. If the store keeps the disk, it is copied.
    ///
    /// - Parameters:
    ///   - size: see `DiskRequest.size`.
    ///   - path: the file, or the directory for kinds with several files.
    /// - Throws: `DiskError`; `ErofsError` or `Ext4Error` if the format cannot express the tree; `ImageStoreError.isArtifact`; `RepositoryError` if the
    ///   store is damaged; `SystemError` if the output cannot be written.
    public func make(
        _ kind: DiskKind, of image: StoredImage, _ tree: DiskTree = .oci, size: UInt64? = nil, at path: ByteString
    ) throws -> DiskReport {
        try make(DiskRequest(kind, tree: tree, size: size), of: image, at: path)
    }

    /// The same.
    public func make(_ request: DiskRequest, of image: StoredImage, at path: ByteString) throws -> DiskReport {
        try request.check()
        repository.noteOutput(FileDescriptor.split(path).directory)
        let layers = try images.layers(of: image)
        let kept = try kept(request, of: image)
        let build = { (sink: any DiskSink) in
            if let kept { return try copy(kept, into: sink) }
            return try DiskBuilder(images: images, request: request, layers: LayerStreams(layers)).run(into: sink)
        }
        let made =
            if request.kind.isDirectory {
                try DiskOutput.makeDirectory(path) { try build(DirectorySink(directory: $0, path: path, repository: repository)) }
            } else {
                try DiskOutput.makeFile(path) { try build(try FileSink($0, path, repository)) }
            }
        return DiskReport(
            kind: request.kind, tree: request.tree, manifestDigest: image.manifestDigest, path: path,
            files: made.files.map { file in
                DiskFile(path: file.name.isEmpty ? path : path + "/" + file.name, size: file.size, diffID: file.diffID)
            }, exceptions: made.exceptions)
    }

    /// Copies a disk that the store keeps. Whole blocks are shared if the file system can.
    private func copy(_ kept: KeptDisk, into sink: any DiskSink) throws -> DiskBuilder.Result {
        var files = kept.files
        let hasDescriptor = kept.request.kind == .vmdk
        if hasDescriptor { files.removeFirst() }
        var result = DiskBuilder.Result(exceptions: kept.exceptions)
        for file in files {
            let made = MadeFile(name: file.name, size: file.size, diffID: file.diffID)
            let content = DiskContent(file.object, size: file.size)
            try sink.space()?.check(content, from: repository)
            result.files.append(try sink.begin(made, content, nil).finish())
        }
        if hasDescriptor {
            // That of the store names objects.
            let descriptor = DiskBuilder.descriptor(of: result.files) { $0.name }
            let made = MadeFile(name: DiskBuilder.descriptorName, size: UInt64(descriptor.count))
            result.files.insert(try sink.begin(made, DiskContent(descriptor), nil).finish(), at: 0)
        }
        return result
    }
}
