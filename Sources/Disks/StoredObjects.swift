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
        var content: [UInt8]?
    }

    /// An object of one block.
    struct Small {
        var content: [UInt8]
        /// Of its block; empty if they are not kept.
        var hashes: [UInt8]
    }

    private struct State {
        var known: [ObjectID: Known] = [:]
        var hashRoom = StoredObjects.hashBytes
        var contentRoom = StoredObjects.contentBytes
    }

    private let algorithm: VerityAlgorithm
    private let keepsHashes: Bool
    private let state = Mutex(State())

    /// The memory for hashes, in bytes. Objects beyond it are hashed once more.
    private static let hashBytes = 8 << 20
    /// The memory for content, in bytes. Objects beyond it are read.
    private static let contentBytes = 8 << 20
    /// What an entry takes besides, about, in bytes.
    private static let overhead = 160

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
            guard bytes <= state.hashRoom, state.known[id] == nil else { return }
            state.hashRoom -= bytes
            if isSmall, Int(size) <= state.contentRoom {
                state.contentRoom -= Int(size)
                known.content = Self.joined(content, Int(size))
            }
            state.known[id] = known
        }
    }

    private static func joined(_ parts: [UnsafeRawBufferPointer], _ size: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: size) { bytes, count in
            for part in parts {
                let place = UnsafeMutableRawBufferPointer(bytes)[count..<(count + part.count)]
                UnsafeMutableRawBufferPointer(rebasing: place).copyMemory(from: part)
                count += part.count
            }
            precondition(count == size, "the parts are the content")
        }
    }

    /// The hashes of all blocks of an object; nil if they are not known, or its file was changed since.
    func hashes(of id: ObjectID, _ status: FileStatus) -> [UInt8]? {
        guard let known = state.withLock({ $0.known[id] }), FileTime(changeOf: status) <= known.time else { return nil }
        let size = UInt64(algorithm.digestSize)
        guard UInt64(known.hashes.count) == (status.size + BlockHashes.blockSize - 1) / BlockHashes.blockSize * size else { return nil }
        return known.hashes
    }

    /// The content of a small object, which is not kept any longer; nil if it is not known.
    func takeSmall(_ id: ObjectID) -> Small? {
        state.withLock { state in
            guard let index = state.known.index(forKey: id), let content = state.known.values[index].content.take() else { return nil }
            state.contentRoom += content.count
            return Small(content: content, hashes: state.known.values[index].hashes)
        }
    }
}
