import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsTransfer

/// Size and digest of a blob that is read in parts; a large one is hashed by another thread meanwhile.
@Suite struct VerifiedBlobTests {
    /// Returns parts of random sizes.
    private final class Reader: BlobReader {
        private let content: [UInt8]
        private var position = 0
        private var random = SplitMix(state: 3)

        init(_ content: [UInt8]) { self.content = content }

        func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
            let limit = random.next() % 3 == 0 ? buffer.count : Int(random.next() % 5000) + 1
            let count = min(limit, buffer.count, content.count - position)
            content.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position..<(position + count)])) }
            position += count
            return count
        }
    }

    private static let sizes = [0, 1, 5000, (1 << 20) - 1, 1 << 20, (3 << 20) + 123]

    private func random(_ size: Int) -> [UInt8] {
        var random = SplitMix(state: UInt64(size))
        return (0..<size).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    private func blob(_ content: [UInt8], expected: [UInt8], _ algorithm: DigestAlgorithm = .sha256) -> VerifiedBlob {
        let descriptor = Descriptor(mediaType: "application/octet-stream", digest: .of(expected, algorithm), size: UInt64(expected.count))
        return VerifiedBlob(blob: Reader(content), descriptor: descriptor, profile: PullProfile())
    }

    private func readAll(_ blob: inout VerifiedBlob) throws -> [UInt8] {
        var found: [UInt8] = []
        while true {
            try blob.fill()
            if blob.isAtEnd { break }
            found += blob.takeAll()
        }
        try blob.finish()
        return found
    }

    @Test(arguments: sizes, DigestAlgorithm.allCases)
    func wholeContent(size: Int, algorithm: DigestAlgorithm) throws {
        let content = random(size)
        var blob = blob(content, expected: content, algorithm)
        #expect(try readAll(&blob) == content)
        #expect(blob.received == UInt64(size))
    }

    @Test(arguments: sizes.dropFirst())
    func anyOtherByteIsFound(size: Int) throws {
        let content = random(size)
        for position in Set([0, size / 2, size - 1]) {
            var other = content
            other[position] ^= 1
            var blob = blob(other, expected: content)
            let error = #expect(throws: PullError.self, "byte \(position)") { try readAll(&blob) }
            guard case .blobDigest(.of(content, .sha256)) = error else {
                Issue.record("\(error as Any)")
                continue
            }
        }
    }

    @Test(arguments: sizes.dropFirst())
    func anotherSizeIsFound(size: Int) throws {
        let content = random(size)
        var short = blob(Array(content.dropLast()), expected: content)
        let missing = #expect(throws: PullError.self) { try readAll(&short) }
        guard case .blobTooShort(_, UInt64(size), UInt64(size - 1)) = missing else {
            Issue.record("\(missing as Any)")
            return
        }
        var long = blob(content + [0], expected: content)
        let extra = #expect(throws: PullError.self) { try readAll(&long) }
        guard case .blobTooLong(_, UInt64(size)) = extra else {
            Issue.record("\(extra as Any)")
            return
        }
    }

    /// One that is dropped while the other thread hashes its bytes.
    @Test func abandoned() throws {
        let content = random(2 << 20)
        for _ in 0..<50 {
            var blob = blob(content, expected: content)
            try blob.fill()
        }
    }
}
