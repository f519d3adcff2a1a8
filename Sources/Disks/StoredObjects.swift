package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

/// What a disk needs of objects that this process has just stored: the hashes of their blocks, and the content of small ones, which need not be read
/// from their files then. Its memory is limited; the disk does without what does not fit.
package final class StoredObjects: Sendable {
    private struct Known: Sendable {
        /// Empty if they are not kept.
        var hashes: [UInt8]
        /// The object's file had the content at this time.
        var time: FileTime
        /// Nil if the object is large, or the content was taken.
        var content: SmallContents.Place?
    }

    /// An object of one block.
    struct Small {
        /// In bytes.
        var size: Int
        /// Of its block; empty if they are not kept.
        var hashes: [UInt8]
    }

    private struct State {
        /// Nil if there were too many.
        var known: [ObjectID: Known]? = [:]
        var hashRoom = StoredObjects.hashBytes
        var contents = SmallContents()

        /// Lets go of all, and keeps nothing any more.
        mutating func end() {
            known = nil
            hashRoom = 0
            contents.end()
        }
    }

    private let algorithm: VerityAlgorithm
    private let keepsHashes: Bool
    private let state = Mutex(State())

    /// The memory for hashes, in bytes. Objects beyond it are hashed once more.
    private static let hashBytes = 8 << 20
    /// What an entry takes besides, about, in bytes.
    private static let overhead = 160
    /// Of an image with more objects too small a part would be known, beside all else that it needs.
    private static let objectLimit = 32_000

    /// - Parameter keepsHashes: whether the digest of a disk is computed from the hashes of blocks, and not by the kernel.
    package init(_ algorithm: VerityAlgorithm, keepsHashes: Bool) {
        self.algorithm = algorithm
        self.keepsHashes = keepsHashes
    }

    /// How many more bytes of hashes are kept.
    package var hashRoom: Int { keepsHashes ? state.withLock { max(0, $0.hashRoom) } : 0 }

    /// Notes an object that was stored, or found and verified, before the call.
    ///
    /// - Parameters:
    ///   - hashes: of all blocks; nil if there are too many.
    ///   - size: of the content, in bytes.
    ///   - content: its parts.
    package func insert(_ id: ObjectID, _ hashes: [UInt8]?, size: UInt64, content: [UnsafeRawBufferPointer] = []) {
        let isSmall = size > 0 && size <= BlockHashes.blockSize && !content.isEmpty
        let hashes = keepsHashes ? hashes : []
        guard let hashes, !hashes.isEmpty || isSmall else { return }
        let now = Host.currentTime()
        var known = Known(hashes: hashes, time: FileTime(seconds: now.seconds, nanoseconds: now.nanoseconds), content: nil)
        state.withLock { state in
            let bytes = hashes.count + Self.overhead
            guard bytes <= state.hashRoom, let count = state.known?.count, state.known?[id] == nil else { return }
            guard count < Self.objectLimit else { return state.end() }
            state.hashRoom -= bytes
            if isSmall { known.content = state.contents.add(content, size: Int(size)) }
            state.known?[id] = known
        }
    }

    /// Lets go of all content, and keeps none any more.
    package func dropContent() {
        state.withLock { state in
            state.contents.end()
            guard var known = state.known.take() else { return }
            for index in known.values.indices { known.values[index].content = nil }
            state.known = known
        }
    }

    /// The hashes of all blocks of an object; nil if they are not known, or its file was changed since.
    func hashes(of id: ObjectID, _ status: FileStatus) -> [UInt8]? {
        guard let known = state.withLock({ $0.known?[id] }), FileTime(changeOf: status) <= known.time else { return nil }
        let size = UInt64(algorithm.digestSize)
        guard UInt64(known.hashes.count) == (status.size + BlockHashes.blockSize - 1) / BlockHashes.blockSize * size else { return nil }
        return known.hashes
    }

    /// Copies the content of a small object, which is not kept any longer. Nil if it is not known.
    ///
    /// - Parameter place: has the object's size. If that is another one, nothing is copied.
    func takeSmall(_ id: ObjectID, into place: UnsafeMutableRawBufferPointer) -> Small? {
        state.withLock { state in
            guard let hashes = state.known?[id]?.hashes, let content = state.known?[id]?.content.take() else { return nil }
            state.contents.take(content, into: place)
            return Small(size: content.bytes.count, hashes: hashes)
        }
    }
}

/// Contents of small objects, in few pieces of memory: the allocator would keep that of each.
private struct SmallContents: Sendable {
    struct Place: Sendable {
        var piece: Int
        var bytes: Range<Int>
    }

    private struct Piece: Sendable {
        var bytes = [UInt8](repeating: 0, count: SmallContents.pieceSize)
        var end = 0
        /// The number of contents that were not taken.
        var count = 0
    }

    /// Those that are not in use any more are empty.
    private var pieces: [Piece] = []
    private var inUse = 0
    private var most = SmallContents.size / SmallContents.pieceSize

    /// In bytes. Objects beyond it are read.
    private static let size = 16 << 20
    private static let pieceSize = 1 << 20

    /// Nil if there is no room.
    mutating func add(_ parts: [UnsafeRawBufferPointer], size: Int) -> Place? {
        // All that the last one held was taken.
        if let last = pieces.indices.last, pieces[last].count == 0 { pieces[last].end = 0 }
        if pieces.isEmpty || pieces[pieces.count - 1].end + size > Self.pieceSize {
            guard inUse < most else { return nil }
            pieces.append(Piece())
            inUse += 1
        }
        let index = pieces.count - 1
        let start = pieces[index].end
        var end = start
        pieces[index].bytes.withUnsafeMutableBytes { bytes in
            for part in parts {
                UnsafeMutableRawBufferPointer(rebasing: bytes[end..<(end + part.count)]).copyMemory(from: part)
                end += part.count
            }
        }
        precondition(end == start + size, "the parts are the content")
        pieces[index].end = end
        pieces[index].count += 1
        return Place(piece: index, bytes: start..<end)
    }

    mutating func take(_ content: Place, into place: UnsafeMutableRawBufferPointer) {
        if content.bytes.count == place.count { place.copyBytes(from: pieces[content.piece].bytes[content.bytes]) }
        pieces[content.piece].count -= 1
        guard pieces[content.piece].count == 0, content.piece < pieces.count - 1 else { return }
        pieces[content.piece].bytes = []
        inUse -= 1
    }

    /// Lets go of all, and takes no more.
    mutating func end() {
        pieces = []
        most = 0
    }
}
