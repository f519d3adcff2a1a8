import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports

/// The second stage of a blob's way: its bytes as they come, digested and counted. One byte more than announced is refused at once, one
/// less, or another digest, at the end.
package struct VerifiedBlob: ~Copyable {
    /// What has been read and not been consumed yet.
    var input: UnsafeRawBufferPointer
    private(set) var received: UInt64 = 0
    private(set) var isAtEnd = false
    private let buffer: UnsafeMutableRawBufferPointer
    private let blob: any BlobReader
    /// Nil where nothing is known of the blob beforehand.
    private let descriptor: Descriptor?
    private let keeper: BlobKeeper?
    private var hasher: DigestHasher?
    private let profile: PullProfile

    init(blob: any BlobReader, descriptor: Descriptor?, keeper: BlobKeeper? = nil, profile: PullProfile) {
        buffer = .allocate(byteCount: 256 * 1024, alignment: 4096)
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        self.blob = blob
        self.descriptor = descriptor
        self.keeper = keeper
        self.profile = profile
        hasher = if let descriptor { DigestHasher(descriptor.digest.algorithm) } else { nil }
    }

    deinit { buffer.deallocate() }

    /// Reads the next bytes into `input`, which must have been consumed.
    mutating func fill() throws {
        guard !isAtEnd else { return }
        let count = try profile.measure(.read) { try blob.read(into: buffer) }
        guard count > 0 else {
            isAtEnd = true
            return
        }
        received += UInt64(count)
        if let descriptor, received > descriptor.size { throw PullError.blobTooLong(descriptor.digest, announced: descriptor.size) }
        input = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let started = PullProfile.now()
        hasher?.update(input)
        profile.add(.digest, PullProfile.now() - started)
        try keeper?.append(input)
    }

    /// What `fill` has read, taken as a whole; valid until the next `fill`.
    mutating func takeAll() -> UnsafeRawBufferPointer {
        let all = input
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        return all
    }

    /// Throws unless everything was read, the size is the announced one and the digest is the descriptor's.
    mutating func finish() throws {
        guard let descriptor else { return }
        guard received == descriptor.size else {
            throw PullError.blobTooShort(descriptor.digest, announced: descriptor.size, received: received)
        }
        guard let actual = hasher?.finalize(), actual == descriptor.digest else { throw PullError.blobDigest(descriptor.digest) }
    }

    /// All of a blob that is small enough to hold.
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
    /// All of a blob that is small enough to hold, verified.
    func readBlob(_ descriptor: Descriptor, limit: Int, _ cancellation: Cancellation = Cancellation()) throws -> [UInt8] {
        try download(descriptor, cancellation).verified { blob in
            try VerifiedBlob(blob: blob, descriptor: descriptor, profile: PullProfile()).readAll(limit: limit)
        }
    }
}
