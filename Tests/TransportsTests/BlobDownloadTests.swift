import ComposefsConcurrency
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports
import Synchronization
import Testing

private struct Broken: Error, Equatable { var origin: Int }
private struct Refused: Error {}

/// The result of one attempt at an origin: bytes, followed by an end.
private enum Answer {
    case all
    /// A number of bytes, then a failure.
    case breaks(after: Int, Retry)
    /// A number of bytes, then the end of the connection before the end of the blob.
    case part(Int)
    case fails(Retry, concernsOrigin: Bool = true)
    /// Other bytes of the blob's size.
    case lies
}

/// Origins with an answer for each attempt. The last answer of an origin is repeated.
private final class ScriptedOrigins: BlobOrigins {
    let blob: [UInt8]
    var answers: [[Answer]]
    private(set) var connects: [(origin: Int, offset: UInt64)] = []
    private(set) var givenUp: [Int] = []
    private(set) var liars: [[Int]] = []
    var first = 0

    init(_ blob: [UInt8], _ answers: [[Answer]]) {
        self.blob = blob
        self.answers = answers
    }

    var count: Int { answers.count }
    var cancellation: Cancellation? { nil }

    func retryBudget(of origin: Int) -> RetryBudget {
        var policy = RetryPolicy()
        policy.limit = 2
        policy.baseDelay = .milliseconds(1)
        return RetryBudget(policy)
    }

    func connect(_ origin: Int, from offset: UInt64) throws(OriginFailure) -> any BlobConnection {
        if origin < first { throw OriginFailure(Broken(origin: origin), concernsOrigin: true) }
        connects.append((origin, offset))
        let answer = answers[origin].count > 1 ? answers[origin].removeFirst() : answers[origin][0]
        if case .fails(let retry, let concernsOrigin) = answer {
            throw OriginFailure(Broken(origin: origin), retry: retry, concernsOrigin: concernsOrigin)
        }
        return Connection(self, origin, Int(offset), answer)
    }

    func gaveUp(_ origin: Int, _ error: any Error) { givenUp.append(origin) }

    func sentOtherContent(_ origins: [Int], _ reason: String) -> String? {
        liars.append(origins)
        guard let last = origins.last, last + 1 < count else { return nil }
        first = last + 1
        return "origin \(last) lies"
    }

    var failure: any Error { Broken(origin: givenUp.last ?? -1) }

    final class Connection: BlobConnection {
        let origins: ScriptedOrigins
        let origin: Int
        var position: Int
        let end: Int
        let answer: Answer

        init(_ origins: ScriptedOrigins, _ origin: Int, _ position: Int, _ answer: Answer) {
            (self.origins, self.origin, self.position, self.answer) = (origins, origin, position, answer)
            switch answer {
            case .breaks(let count, _), .part(let count): end = min(origins.blob.count, position + count)
            default: end = origins.blob.count
            }
        }

        func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int? {
            if position == end {
                if case .breaks(_, let retry) = answer { throw OriginFailure(Broken(origin: origin), retry: retry, concernsOrigin: true) }
                return position == origins.blob.count ? 0 : nil
            }
            let count = min(buffer.count, end - position)
            var bytes = Array(origins.blob[position..<(position + count)])
            if case .lies = answer { bytes = bytes.map { ~$0 } }
            buffer.copyBytes(from: bytes)
            position += count
            return count
        }

        func close() {}
    }
}

private final class MemoryPartial: PartialBlob {
    var bytes: [UInt8]
    private(set) var clears = 0

    init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    var length: UInt64 { UInt64(bytes.count) }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Int {
        let part = bytes[min(bytes.count, Int(offset))...].prefix(buffer.count)
        buffer.copyBytes(from: part)
        return part.count
    }

    func append(_ bytes: UnsafeRawBufferPointer) { self.bytes += bytes }

    func clear() {
        bytes = []
        clears += 1
    }
}

@Suite struct BlobDownloadTests {
    private let blob: [UInt8] = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
    private var descriptor: Descriptor { Descriptor(mediaType: "a/b", digest: .of(blob), size: UInt64(blob.count)) }

    private func readAll(_ reader: BlobDownload) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 30_000)
        while case let count = try buffer.withUnsafeMutableBytes({ try reader.read(into: $0) }), count > 0 { bytes += buffer[..<count] }
        return bytes
    }

    /// Reads and compares, as a pull does.
    private func verify(_ download: BlobDownload, _ verdict: BlobDownload.Verdict = .refused) throws -> [UInt8] {
        try download.verified(by: { _ in verdict }) { reader in
            let bytes = try readAll(reader)
            guard bytes == blob else { throw Refused() }
            return bytes
        }
    }

    @Test func goesOnWhereItBroke() throws {
        let origins = ScriptedOrigins(blob, [[.breaks(after: 70_000, .transient(after: nil)), .part(50_000), .all]])
        let log = Mutex<[BlobEvent]>([])
        let download = BlobDownload(descriptor, Cancellation(), { event in log.withLock { $0.append(event) } }) { origins }
        #expect(try readAll(download) == blob)
        #expect(origins.connects.map(\.offset) == [0, 70_000, 120_000])
        let events = log.withLock { $0 }
        #expect(events.dropFirst() == [.resumed(from: 70_000), .resumed(from: 120_000)])
        guard case .retrying? = events.first else { return #expect(Bool(false), "\(events)") }
    }

    /// Every 64 KiB reset the attempts, so the transfer may break more often than the policy's limit.
    @Test func progressRefillsTheBudget() throws {
        let origins = ScriptedOrigins(blob, [[.breaks(after: 66_000, .transient(after: nil))]])
        #expect(try readAll(BlobDownload(descriptor) { origins }) == blob)
        let stuck = ScriptedOrigins(blob, [[.breaks(after: 1000, .transient(after: nil))]])
        #expect(throws: Broken(origin: 0)) { try readAll(BlobDownload(descriptor) { stuck }) }
        #expect(stuck.connects.map(\.offset) == [0, 1000, 2000])
    }

    @Test func theNextOriginGoesOn() throws {
        let origins = ScriptedOrigins(
            blob, [[.fails(.never)], [.breaks(after: 80_000, .never)], [.all]])
        #expect(try readAll(BlobDownload(descriptor) { origins }) == blob)
        #expect(origins.connects.map(\.origin) == [0, 1, 2])
        #expect(origins.connects.map(\.offset) == [0, 0, 80_000])
        #expect(origins.givenUp == [0, 1])
    }

    @Test func failuresOfAllOrigins() throws {
        let origins = ScriptedOrigins(blob, [[.fails(.never)], [.fails(.never)]])
        let download = BlobDownload(descriptor) { origins }
        #expect(throws: Broken(origin: 1)) { try download.connect() }
        // A failed download stays failed.
        #expect(throws: Broken(origin: 1)) { try readAll(download) }
        #expect(origins.connects.count == 2)
        let own = ScriptedOrigins(blob, [[.fails(.never, concernsOrigin: false)], [.all]])
        #expect(throws: Broken(origin: 0)) { try readAll(BlobDownload(descriptor) { own }) }
        #expect(own.connects.count == 1)
    }

    @Test func keptBytesComeFirst() throws {
        let origins = ScriptedOrigins(blob, [[.all]])
        let partial = MemoryPartial(Array(blob.prefix(90_000)))
        #expect(try verify(BlobDownload(descriptor, partial: partial) { origins }) == blob)
        #expect(origins.connects.map(\.offset) == [90_000])
        #expect(partial.bytes == blob && partial.clears == 0)
        // The whole blob is kept, so no origin is asked.
        let none = ScriptedOrigins(blob, [[.all]])
        #expect(try verify(BlobDownload(descriptor, partial: MemoryPartial(blob)) { none }) == blob)
        #expect(none.connects.isEmpty)
    }

    /// The download restarts once: the first time the kept bytes may be wrong, the second time the origin is.
    @Test func damagedKeptBytesAreFetchedAnew() throws {
        let origins = ScriptedOrigins(blob, [[.all]])
        let partial = MemoryPartial(blob.prefix(90_000).map { ~$0 })
        #expect(try verify(BlobDownload(descriptor, partial: partial) { origins }) == blob)
        #expect(origins.connects.map(\.offset) == [90_000, 0])
        #expect(partial.bytes == blob)
        let liar = ScriptedOrigins(blob, [[.lies]])
        let worthless = MemoryPartial(Array(blob.prefix(10)))
        #expect(throws: Refused.self) { try verify(BlobDownload(descriptor, partial: worthless) { liar }) }
        #expect(liar.connects.map(\.offset) == [10, 0] && worthless.bytes.isEmpty)
    }

    @Test func aLiarIsLeft() throws {
        let origins = ScriptedOrigins(blob, [[.lies], [.lies], [.all]])
        let partial = MemoryPartial()
        #expect(try verify(BlobDownload(descriptor, partial: partial) { origins }) == blob)
        #expect(origins.connects.map(\.origin) == [0, 1, 2] && origins.liars == [[0], [1]])
        #expect(partial.bytes == blob)
        let alone = ScriptedOrigins(blob, [[.lies]])
        #expect(throws: Refused.self) { try verify(BlobDownload(descriptor) { alone }) }
        #expect(alone.connects.count == 1)
    }

    /// Correct content is the same at every origin, so a failure to store it is no reason to try another one.
    @Test(arguments: [BlobDownload.Verdict.unusable, .unrelated, .tooLarge])
    func otherVerdicts(_ verdict: BlobDownload.Verdict) throws {
        let origins = ScriptedOrigins(blob, [[.lies], [.all]])
        let partial = MemoryPartial()
        let result = Result { try verify(BlobDownload(descriptor, partial: partial) { origins }, verdict) }
        switch verdict {
        case .tooLarge: #expect(try result.get() == blob)
        case .unusable:
            #expect(throws: Refused.self) { try result.get() }
            #expect(partial.bytes.isEmpty)
        default:
            #expect(throws: Refused.self) { try result.get() }
            #expect(partial.bytes.count == blob.count)
        }
    }

    @Test func cancelled() throws {
        let cancellation = Cancellation()
        let origins = ScriptedOrigins(blob, [[.breaks(after: 50_000, .transient(after: .seconds(60)))]])
        let download = BlobDownload(descriptor, cancellation, { event in if case .retrying = event { cancellation.cancel() } }) { origins }
        let start = ContinuousClock.now
        #expect(throws: CancellationError.self) { try readAll(download) }
        #expect(ContinuousClock.now - start < .seconds(30))
        #expect(throws: CancellationError.self) { try readAll(BlobDownload(descriptor, cancellation) { origins }) }
        #expect(origins.connects.count == 1)
    }

    @Test func localFilesAreReadOnce() throws {
        let opened = Mutex(0)
        let download = BlobDownload(descriptor, from: 1000) { [blob] in
            LocalOrigin {
                opened.withLock { $0 += 1 }
                return DataBlobReader(blob)
            }
        }
        #expect(try readAll(download) == Array(blob.dropFirst(1000)))
        #expect(opened.withLock { $0 } == 1)
        let broken = BlobDownload(descriptor) { LocalOrigin { throw Broken(origin: 7) } }
        #expect(throws: Broken(origin: 7)) { try readAll(broken) }
    }
}

@Suite struct RetryBudgetTests {
    @Test func pauses() {
        var policy = RetryPolicy()
        policy.limit = 3
        policy.baseDelay = .milliseconds(100)
        let budget = RetryBudget(policy)
        for expected in [100, 200, 400] {
            let pause = budget.pause(after: .transient(after: nil)) ?? .zero
            #expect(pause >= .milliseconds(expected / 2) && pause <= .milliseconds(expected))
        }
        #expect(budget.pause(after: .transient(after: nil)) == nil)
        budget.refill()
        #expect(budget.pause(after: .transient(after: .seconds(7))) == .seconds(7))
        #expect(budget.pause(after: .transient(after: .seconds(301))) == nil)
        budget.refill()
        #expect(budget.pause(after: .unreachable) != nil)
        #expect(budget.pause(after: .unreachable) != nil)
        #expect(budget.pause(after: .unreachable) == nil)
        #expect(budget.pause(after: .never) == nil)
    }

    @Test func fewAttemptsIfThereIsAnAlternative() {
        let budget = RetryBudget(RetryPolicy(), hasAlternative: true)
        #expect(budget.pause(after: .transient(after: nil)) != nil)
        #expect(budget.pause(after: .transient(after: nil)) != nil)
        #expect(budget.pause(after: .transient(after: nil)) == nil)
        #expect(RetryBudget(RetryPolicy(), hasAlternative: true).pause(after: .unreachable) == nil)
    }
}
