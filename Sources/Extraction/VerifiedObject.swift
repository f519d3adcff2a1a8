import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository

/// Reads the content of an object once, from beginning to end, and compares it with the object's name: the kernel's digest before the first byte, or one
/// of the bytes that were read after the last. What was made of the bytes must not be used before.
struct VerifiedObject: ~Copyable {
    let file: FileDescriptor
    private let id: ObjectID
    private let size: UInt64
    private let isVerified: Bool
    /// Whether the file has holes, which need not be written.
    private let hasHoles: Bool

    /// - Throws: `RepositoryError`; `ExtractionError.objectSize`.
    init(_ id: ObjectID, size: UInt64, in repository: Repository) throws {
        let isSecure = repository.isSecure
        let file = try repository.openObject(id, verify: isSecure)
        let status = try file.status()
        guard status.size == size else { throw ExtractionError.objectSize(id, found: status.size, expected: size) }
        self.id = id
        self.size = size
        isVerified = isSecure
        hasHoles = status.blocks &* 512 < status.size
        self.file = file
    }

    /// Calls `body` with consecutive parts: bytes, or the length of a hole. The memory is valid only during the call.
    ///
    /// - Parameters:
    ///   - buffer: for the bytes.
    ///   - needsBytes: false if the bytes are only verified; an object that is verified already is not read then.
    func read(
        _ buffer: UnsafeMutableRawBufferPointer, _ hasher: inout VerityHasher, needsBytes: Bool = true,
        _ body: (_ bytes: UnsafeRawBufferPointer, _ hole: UInt64) throws -> Void
    ) throws {
        guard needsBytes || !isVerified else { return }
        var position: UInt64 = 0
        while position < size {
            if hasHoles {
                let data = min(try file.nextData(from: position) ?? size, size)
                if data > position {
                    if !isVerified { hasher.update(zeros: data - position) }
                    try body(UnsafeRawBufferPointer(start: nil, count: 0), data - position)
                    position = data
                    continue
                }
            }
            var end = min(size, position + UInt64(buffer.count))
            if hasHoles { end = min(end, try file.nextHole(from: position)) }
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(end - position)])
            let count = try file.preadFully(into: part, at: position)
            guard count == part.count else { throw ExtractionError.objectSize(id, found: position + UInt64(count), expected: size) }
            if !isVerified { hasher.update(UnsafeRawBufferPointer(part)) }
            try body(UnsafeRawBufferPointer(part), 0)
            position = end
        }
        guard !isVerified else { return }
        let actual = hasher.finalize()
        guard actual == id else { throw RepositoryError.objectDamaged(id, .digest(actual)) }
    }
}
