import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsExt4
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// The content of one file of a disk: metadata, and objects at their places. All other bytes are zero.
struct DiskContent {
    let byteCount: UInt64
    /// In ascending order of their offsets.
    let parts: ObjectParts
    private let metadata: ((UnsafeRawBufferPointer, _ offset: UInt64) throws -> Void) throws -> Void

    init(_ plan: ErofsDiskPlan) {
        byteCount = plan.byteCount
        parts = ObjectParts(.erofs(plan.placements))
        metadata = { try plan.writeMetadata($0) }
    }

    init(_ plan: Ext4Plan) {
        byteCount = plan.byteCount
        parts = ObjectParts(.ext4(plan.placements))
        metadata = { write in
            for blocks in plan.metadata { try blocks.bytes.withUnsafeBytes { try write($0, blocks.offset) } }
        }
    }

    /// A file that is an object as a whole.
    init(_ object: ObjectID, size: UInt64) {
        byteCount = size
        parts = ObjectParts(.one(ObjectPart(object: object, objectSize: size, objectOffset: 0, offset: 0, count: size)))
        metadata = { _ in }
    }

    /// A file of these bytes.
    init(_ bytes: [UInt8]) {
        byteCount = UInt64(bytes.count)
        parts = ObjectParts(.none)
        metadata = { write in try bytes.withUnsafeBytes { try write($0, 0) } }
    }

    /// Starts to copy the objects to an empty file on other threads, and writes the metadata.
    ///
    /// - Parameters:
    ///   - proofs: of objects that need not be hashed.
    ///   - hashes: takes the hashes of all blocks instead.
    ///   - stored: objects that need not be hashed for that, or not even read.
    func start(
        into file: borrowing FileDescriptor, from repository: Repository, _ proofs: ObjectProofs?, hashes: BlockHashes? = nil,
        stored: StoredObjects? = nil, _ cancellation: Cancellation
    ) throws -> ObjectCopy.Running {
        try file.truncate(to: byteCount)
        proofs?.endAhead()
        let copy = try ObjectCopy(parts, from: repository, proofs, cancellation).start(into: file, hashes, stored)
        var writer = GatheredWriter()
        try metadata { bytes, offset in
            try writer.add(bytes, at: offset, to: file)
            hashes?.addMetadata(offset..<(offset + UInt64(bytes.count)))
        }
        try writer.flush(to: file)
        return copy
    }

    /// The digest of a file with this content, as an object. Every object is verified on the way.
    ///
    /// - Throws: as `ObjectCopy.Running.finish`.
    func identifier(in repository: Repository) throws -> ObjectID {
        var hasher = VerityHasher(repository.algorithm)
        var position: UInt64 = 0
        var rest = parts[...]
        func hashZeros(to offset: UInt64) {
            precondition(offset >= position, "the content of a disk overlaps")
            hasher.update(zeros: offset - position)
            position = offset
        }
        func hashParts(before offset: UInt64) throws {
            while let part = rest.first, part.offset < offset {
                hashZeros(to: part.offset)
                try hash(part, &hasher, repository)
                position = part.end
                rest.removeFirst()
            }
        }
        try metadata { bytes, offset in
            try hashParts(before: offset)
            hashZeros(to: offset)
            hasher.update(bytes)
            position += UInt64(bytes.count)
        }
        try hashParts(before: .max)
        hashZeros(to: byteCount)
        return hasher.finalize()
    }

    private func hash(_ part: ObjectPart, _ hasher: inout VerityHasher, _ repository: Repository) throws {
        let file = try repository.openObject(part.object)
        let size = try file.status().size
        guard size == part.objectSize else { throw DiskError.objectSize(part.object, found: size, expected: part.objectSize) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
        defer { buffer.deallocate() }
        let end = part.objectOffset + part.count
        var parts = FileParts(into: buffer, from: part.objectOffset, to: end)
        while let bytes = try parts.next(of: file) { hasher.update(bytes) }
        guard parts.offset == end else { throw DiskError.objectSize(part.object, found: parts.offset, expected: part.objectSize) }
    }
}
