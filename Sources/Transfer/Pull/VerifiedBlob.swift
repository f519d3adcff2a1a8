import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTransports

/// The second stage of a pull: computes the size and digest of a blob while it is read. A blob that is too long is refused at the first
/// extra byte, one that is too short or has another digest at the end.
package struct VerifiedBlob: ~Copyable {
    /// The bytes that have been read but not consumed.
    var input: UnsafeRawBufferPointer
    private(set) var received: UInt64 = 0
    private(set) var isAtEnd = false
    private let buffer: UnsafeMutableRawBufferPointer
    private let blob: any BlobReader
    /// Nil if size and digest are not known.
    private let descriptor: Descriptor?
    private let keeper: BlobKeeper?
    private let hasher: BlobDigest?
    private let profile: PullProfile

    init(blob: any BlobReader, descriptor: Descriptor?, keeper: BlobKeeper? = nil, profile: PullProfile) {
        buffer = .allocate(byteCount: 256 * 1024, alignment: 4096)
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        self.blob = blob
        self.descriptor = descriptor
        self.keeper = keeper
        self.profile = profile
        hasher = descriptor.map { BlobDigest($0.digest.algorithm, size: $0.size, profile) }
    }

    deinit {
        hasher?.wait()
        buffer.deallocate()
    }

    /// Reads the next bytes into `input`. The caller has consumed the previous ones.
    ///
    /// - Throws: `PullError.blobTooLong`, and errors of the blob's reader.
    mutating func fill() throws {
        guard !isAtEnd else { return }
        hasher?.wait()
        let count = try profile.measure(.read) { try blob.read(into: buffer) }
        guard count > 0 else {
            isAtEnd = true
            return
        }
        received += UInt64(count)
        if let descriptor, received > descriptor.size { throw PullError.blobTooLong(descriptor.digest, announced: descriptor.size) }
        input = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        hasher?.update(input)
        try keeper?.append(input)
    }

    /// Consumes and returns all bytes that `fill` has read. They are valid until the next `fill`.
    mutating func takeAll() -> UnsafeRawBufferPointer {
        let all = input
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        return all
    }

    /// Compares size and digest with the descriptor. Called at the end of the blob.
    ///
    /// - Throws: `PullError.blobTooShort`, `PullError.blobDigest`.
    mutating func finish() throws {
        guard let descriptor else { return }
        guard received == descriptor.size else {
            throw PullError.blobTooShort(descriptor.digest, announced: descriptor.size, received: received)
        }
        guard let actual = hasher?.finalize(), actual == descriptor.digest else { throw PullError.blobDigest(descriptor.digest) }
    }

    /// Reads and verifies the whole blob.
    ///
    /// - Parameter limit: the largest size that is read into memory, in bytes.
    /// - Throws: `PullError`, and errors of the blob's reader.
    consuming func readAll(limit: Int) throws -> [UInt8] {
        if let descriptor, descriptor.size > UInt64(limit) {
            throw PullError.blobTooLarge(descriptor.digest, announced: descriptor.size, limit: limit)
        }
        var bytes: [UInt8] = []
        while true {
            try fill()
            if isAtEnd { break }
            bytes.append(contentsOf: input)
        }
        try finish()
        return bytes
    }
}

extension ImageSource {
    /// Downloads, verifies and returns a blob.
    ///
    /// - Parameter limit: the largest size that is read into memory, in bytes.
    func readBlob(_ descriptor: Descriptor, limit: Int, _ cancellation: Cancellation = Cancellation()) throws -> [UInt8] {
        try download(descriptor, cancellation).verified { blob in
            try VerifiedBlob(blob: blob, descriptor: descriptor, profile: PullProfile()).readAll(limit: limit)
        }
    }
}

/// The digest of a blob. A large one is hashed by a thread of its own while the caller decompresses the same bytes, which otherwise takes the most time
/// of all that one layer needs.
///
/// One thread uses the value.
final class BlobDigest: @unchecked Sendable {
    // Between `update` and `wait` only the pool's thread uses it.
    private var hasher: DigestHasher
    private let pool: WorkerPool?
    private let done = Semaphore(0)
    private var isPending = false
    private let profile: PullProfile

    /// In bytes. For less, a thread does not pay.
    private static let leastBytes: UInt64 = 1 << 20

    /// - Parameter size: of the blob, in bytes.
    init(_ algorithm: DigestAlgorithm, size: UInt64, _ profile: PullProfile) {
        hasher = DigestHasher(algorithm)
        pool = size >= Self.leastBytes && Host.processorCount > 1 ? WorkerPool(threads: 1) : nil
        self.profile = profile
    }

    /// Adds bytes, which must stay as they are until `wait`.
    func update(_ bytes: UnsafeRawBufferPointer) {
        wait()
        guard let pool else { return profile.measure(.digest) { hasher.update(bytes) } }
        nonisolated(unsafe) let bytes = bytes
        isPending = true
        pool.submit {
            self.profile.measure(.digest) { self.hasher.update(bytes) }
            self.done.signal()
        }
    }

    /// Waits until the bytes are hashed.
    func wait() {
        guard isPending else { return }
        done.wait()
        isPending = false
    }

    /// The digest of all bytes.
    func finalize() -> ContentDigest {
        wait()
        return hasher.finalize()
    }
}
