internal import ComposefsCSHA2

/// SHA-2 of several blocks of 4096 bytes at a time, by vector instructions of the processor.
struct BlockLanes: Sendable {
    /// The most blocks at a time.
    let count: Int
    /// Fewer blocks are hashed faster one after the other.
    let fewest: Int
    private let algorithm: VerityAlgorithm

    /// Nil if the processor has no suitable instructions.
    init?(_ algorithm: VerityAlgorithm) {
        let lanes =
            switch algorithm {
            case .sha256: csha2_lanes_256()
            case .sha512: csha2_lanes_512()
            }
        guard lanes > 0 else { return nil }
        self.algorithm = algorithm
        count = Int(lanes)
        // Processors have instructions for SHA-256, but few for SHA-512.
        fewest = algorithm == .sha256 ? 7 : 3
    }

    private static let all = VerityAlgorithm.allCases.map { BlockLanes($0) }

    /// Those to use; nil if libcrypto is faster, which it is without optimization.
    static func best(_ algorithm: VerityAlgorithm) -> BlockLanes? {
        #if DEBUG
            nil
        #else
            all[algorithm == .sha256 ? 0 : 1]
        #endif
    }

    /// Writes the digests of consecutive blocks, one after the other.
    ///
    /// - Parameters:
    ///   - number: of blocks, from 1 to `count`.
    ///   - digests: memory for `algorithm.digestSize` bytes for each.
    func hash(_ blocks: UnsafeRawPointer, _ number: Int, into digests: UnsafeMutableRawPointer) {
        precondition(number >= 1 && number <= count, "as many blocks as there are lanes")
        switch algorithm {
        case .sha256: csha2_blocks_256(blocks, Int32(number), digests)
        case .sha512: csha2_blocks_512(blocks, Int32(number), digests)
        }
    }
}
