public import ComposefsBytes
import ComposefsEROFS
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// Makes disks of stored images. The same image gives the same bytes, whatever repository it is in.
public struct ImageDisks: Sendable {
    private let images: ImageStore

    public init(_ images: ImageStore) { self.images = images }

    /// Makes a disk of an image, and verifies every object on the way. A directory must not exist or be empty; a regular file is replaced. Nothing
    /// of the output is visible before all of it is durable.
    ///
    /// - Parameters:
    ///   - size: the size of a flat disk in bytes. It then has a journal, and can be mounted for writing. Without a size it has no room for
    ///     anything else, and no journal.
    ///   - path: the file, or the directory for kinds with several files.
    /// - Throws: `DiskError`; `ErofsError` or `Ext4Error` if the format cannot express the tree; `ImageStoreError.isArtifact`; `RepositoryError` if the
    ///   store is damaged; `SystemError` if the output cannot be written.
    public func make(
        _ kind: DiskKind, of image: StoredImage, _ tree: DiskTree = .oci, size: UInt64? = nil, at path: ByteString
    ) throws -> DiskReport {
        guard kind != .layered || tree == .oci else { throw DiskError.layersHaveOwnTrees }
        guard size == nil || kind == .flat else { throw DiskError.sizeNotApplicable(kind) }
        let layers = try images.layers(of: image)
        var report = DiskReport(
            kind: kind, tree: tree, manifestDigest: image.manifestDigest, path: path, files: [], exceptions: [])
        switch kind {
        case .single:
            let plan = try ErofsDiskPlan(try merged(layers, tree))
            try DiskOutput.makeFile(path) { try write(plan, to: $0) }
            report.files = [DiskFile(path: path, size: plan.byteCount)]
        case .fsmeta:
            var space = ErofsBlockSpace()
            let merged = try images.mergedTree(ofStack: layers) { try space.append(try ErofsDiskPlan($1.tree)) }
            let plan = try ErofsDiskPlan(finished(merged, tree), .space(space, .devices))
            try DiskOutput.makeFile(path) { try write(plan, to: $0) }
            report.files = [DiskFile(path: path, size: plan.byteCount)]
        case .flat: report.files = [DiskFile(path: path, size: try makeFlat(image, layers, tree, size, at: path))]
        case .layered:
            try DiskOutput.makeDirectory(path) { directory in
                var copy: ObjectCopy.Running?
                _ = try images.mergedTree(ofStack: layers) { index, layer in
                    let added = try add(layer, index, layers[index].diffID, path, to: directory)
                    report.files.append(added.file)
                    report.exceptions += layer.exceptions
                    // One is copied while the next one is merged.
                    try copy?.finish()
                    copy = try added.copy()
                }
                try copy?.finish()
            }
        case .vmdk: report.files = try makeVirtualDisk(layers, tree, at: path)
        }
        return report
    }

    // MARK: Trees

    private typealias Layers = [(diffID: ContentDigest, stream: ObjectID)]

    private func merged(_ layers: Layers, _ tree: DiskTree) throws -> FileTree {
        switch tree {
        case .oci: try images.mergedTree(of: layers)
        case .composefs: try images.containerTree(of: layers)
        }
    }

    private func finished(_ merged: FileTree, _ tree: DiskTree) -> FileTree {
        var merged = merged
        if tree == .composefs { transformForContainer(&merged) }
        return merged
    }

    // MARK: EROFS

    private func write(_ plan: ErofsDiskPlan, to file: borrowing FileDescriptor) throws {
        try writeMetadata(plan, to: file)
        try copy(plan).run(into: file)
    }

    private func writeMetadata(_ plan: ErofsDiskPlan, to file: borrowing FileDescriptor) throws {
        try file.truncate(to: plan.byteCount)
        var writer = GatheredWriter()
        try plan.writeMetadata { bytes, offset in try writer.add(bytes, at: offset, to: file) }
        try writer.flush(to: file)
    }

    private func copy(_ plan: ErofsDiskPlan) -> ObjectCopy {
        let parts = plan.placements.map {
            ObjectPart(object: $0.object, objectSize: $0.byteCount, objectOffset: 0, offset: $0.offset, count: $0.byteCount)
        }
        return ObjectCopy(parts, from: images.repository)
    }

    /// Adds the image of a layer to a directory, without the contents of files.
    ///
    /// - Returns: also a function that starts to copy these.
    private func add(
        _ layer: StackableLayer, _ index: Int, _ diffID: ContentDigest, _ path: ByteString, to directory: NewDirectory
    ) throws -> (file: DiskFile, plan: ErofsDiskPlan, copy: () throws -> ObjectCopy.Running) {
        let plan = try ErofsDiskPlan(layer.tree)
        let digits = String(index)
        let name = ByteString(String(repeating: "0", count: max(0, 4 - digits.count)) + digits + "-" + diffID.hex + ".erofs")
        let file = try directory.makeFile(name)
        try writeMetadata(plan, to: file.file)
        let contents = copy(plan)
        return (DiskFile(path: path + "/" + name, size: plan.byteCount, diffID: diffID), plan, { try contents.start(into: file.file) })
    }

    private func makeVirtualDisk(_ layers: Layers, _ tree: DiskTree, at path: ByteString) throws -> [DiskFile] {
        let (descriptor, metadata): (ByteString, ByteString) = ("disk.vmdk", "fsmeta.erofs")
        return try DiskOutput.makeDirectory(path) { directory in
            var space = ErofsBlockSpace()
            var files: [DiskFile] = []
            var copy: ObjectCopy.Running?
            let merged = try images.mergedTree(ofStack: layers) { index, layer in
                let added = try add(layer, index, layers[index].diffID, path, to: directory)
                files.append(added.file)
                try space.append(added.plan)
                // One is copied while the next one is merged.
                try copy?.finish()
                copy = try added.copy()
            }
            let plan = try ErofsDiskPlan(finished(merged, tree), .space(space, .oneDisk))
            try write(plan, to: directory.makeFile(metadata).file)
            try copy?.finish()
            files.insert(DiskFile(path: path + "/" + metadata, size: plan.byteCount), at: 0)
            let disk = VirtualDisk(extents: files.map { (FileDescriptor.split($0.path).name, $0.size) }).descriptor
            try directory.makeFile(descriptor).file.writeAll(disk)
            files.insert(DiskFile(path: path + "/" + descriptor, size: UInt64(disk.count)), at: 0)
            return files
        }
    }

    // MARK: ext4

    private func makeFlat(_ image: StoredImage, _ layers: Layers, _ tree: DiskTree, _ size: UInt64?, at path: ByteString) throws -> UInt64 {
        // From the image: that of the tree depends on the digests of the repository.
        let identity = ContentDigest.of(Array("cfsoci flat disk\0\(tree.rawValue)\0\(image.manifestDigest)".utf8))
        var options = Ext4Options(uuid: Ext4UUID(random: identity.bytes))
        if let size {
            options.size = .exactly(size)
            options.journal = .automatic
        }
        var failure: (any Error)?
        let sparse = try images.sparseObjects(of: layers)
        // Only what the archives hold as sparse files is searched for holes: the layout must not depend on how a repository stores its objects.
        let plan = try Ext4Plan(try merged(layers, tree), options) { id, size in
            guard failure == nil, sparse.contains(id) else { return [] }
            do {
                return try zeros(of: id, size)
            } catch {
                failure = error
                return []
            }
        }
        if let failure { throw failure }
        try DiskOutput.makeFile(path) { file in
            try file.truncate(to: plan.byteCount)
            var writer = GatheredWriter()
            for blocks in plan.metadata { try blocks.bytes.withUnsafeBytes { try writer.add($0, at: blocks.offset, to: file) } }
            try writer.flush(to: file)
            let parts = plan.placements.map {
                ObjectPart(
                    object: $0.object, objectSize: $0.objectSize, objectOffset: $0.objectOffset, offset: $0.imageOffset, count: $0.byteCount
                )
            }
            try ObjectCopy(parts, from: images.repository).run(into: file)
        }
        return plan.byteCount
    }

    /// The ranges of an object's bytes that are zero, in whole blocks. The object is verified when it is copied.
    private func zeros(of id: ObjectID, _ size: UInt64) throws -> [Range<UInt64>] {
        let file = try images.repository.openObject(id, verify: false)
        var found: [Range<UInt64>] = []
        func add(_ range: Range<UInt64>) {
            guard !range.isEmpty else { return }
            if let last = found.last, last.upperBound == range.lowerBound {
                found[found.count - 1] = last.lowerBound..<range.upperBound
            } else {
                found.append(range)
            }
        }
        let blockSize = 4096
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: blockSize)
        defer { buffer.deallocate() }
        var position: UInt64 = 0
        while position < size {
            // A hole begins and ends with a block, whatever the file system's blocks are.
            let data = min(try file.nextData(from: position) ?? size, size)
            let start = data == size ? size : data & ~UInt64(blockSize - 1)
            if start > position {
                add(position..<start)
                position = start
                continue
            }
            let count = try file.preadFully(into: buffer, at: position)
            guard count > 0 else { break }
            for block in stride(from: 0, to: count, by: blockSize) {
                let bytes = buffer[block..<min(count, block + blockSize)]
                let at = position + UInt64(block)
                if bytes.allSatisfy({ $0 == 0 }) { add(at..<min(size, at + UInt64(bytes.count))) }
            }
            position += UInt64(count)
        }
        return found
    }
}
