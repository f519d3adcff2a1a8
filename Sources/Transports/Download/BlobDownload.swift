public import ComposefsConcurrency
public import ComposefsOCIModel

/// A partial blob: the beginning of a blob that an earlier download has kept and that this download extends. Its bytes are not trusted.
/// They pass through the same verification as the bytes of an origin.
public protocol PartialBlob: AnyObject {
    /// The number of bytes that are kept.
    var length: UInt64 { get }
    /// Reads kept bytes from `offset` on into the front of `buffer`. Returns their number; 0 at the end of the partial blob.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws -> Int
    /// Keeps the next bytes. A failure is not reported: the download does not depend on them.
    func append(_ bytes: UnsafeRawBufferPointer)
    /// Removes all kept bytes.
    func clear()
}

/// An event of a blob's download.
public enum BlobEvent: Sendable, Hashable {
    /// The transfer was interrupted; the next attempt begins after the delay.
    case retrying(reason: String, delay: Duration)
    /// The transfer continues at this byte of the blob.
    case resumed(from: UInt64)
}

/// Receives the events of a blob's download, on the thread that reads it. It must not block.
public typealias BlobObserver = @Sendable (BlobEvent) -> Void

/// The bytes of one blob, independent of where they come from: first the partial blob, then the first origin that has the rest.
///
/// After an interruption the download continues at the same byte, as often as the origin's retry budget allows, and then from the next
/// origin. The reader receives each byte once and in order. It verifies size and digest itself; if it refuses the content, `verified`
/// starts another pass.
///
/// Used by one thread at a time.
public final class BlobDownload: BlobReader {
    /// The retry budget is refilled each time that this many more bytes have arrived.
    private static let progressStep: UInt64 = 64 << 10

    private let descriptor: Descriptor
    private let start: UInt64
    private let findOrigins: () throws -> any BlobOrigins
    private let partial: (any PartialBlob)?
    private let cancellation: Cancellation
    private let observer: BlobObserver?

    /// The state of the current pass over the blob's bytes.
    private struct Pass {
        /// The offset of the next byte, from the blob's beginning.
        var offset: UInt64
        /// The end of the kept bytes, which are read first.
        var keptEnd: UInt64
        /// Whether received bytes are appended to the partial blob.
        var keeps = true
        var origins: (any BlobOrigins)?
        /// Ends pauses between attempts, when the caller or the origins cancel.
        var pauses = Cancellation()
        var links: [Cancellation.Registration] = []
        var origin = 0
        var budget: RetryBudget?
        var connection: (any BlobConnection)?
        var hasFetched = false
        var hasConnected = false
        /// The origins that have sent bytes in this pass, in order.
        var senders: [Int] = []
        var lastProgress: UInt64
        var isAtEnd = false
        /// The error that ended reading.
        var failure: (any Error)?
    }

    private var pass: Pass

    /// - Parameters:
    ///   - descriptor: of the blob.
    ///   - offset: the first byte to read; the caller has those before it.
    ///   - partial: the partial blob, if bytes are kept; `offset` is 0 then.
    ///   - cancellation: ends the download at the next read, and pauses immediately.
    ///   - observer: receives the download's events.
    ///   - origins: called once in each pass; returns the origins that remain.
    public init(
        _ descriptor: Descriptor, from offset: UInt64 = 0, partial: (any PartialBlob)? = nil, _ cancellation: Cancellation = Cancellation(),
        _ observer: BlobObserver? = nil, origins: @escaping () throws -> any BlobOrigins
    ) {
        self.descriptor = descriptor
        start = offset
        findOrigins = origins
        self.partial = partial
        self.cancellation = cancellation
        self.observer = observer
        pass = Self.firstPass(descriptor, offset, partial)
    }

    private static func firstPass(_ descriptor: Descriptor, _ start: UInt64, _ partial: (any PartialBlob)?) -> Pass {
        let offset = min(start, descriptor.size)
        return Pass(offset: offset, keptEnd: partial?.length ?? 0, lastProgress: offset)
    }

    deinit { pass.connection?.close() }

    // MARK: Reading

    /// Reads the blob's next bytes into the front of `buffer` and returns their number; 0 at the end.
    ///
    /// - Throws: `CancellationError`, or the error of the last origin. After an error, every further call throws it again.
    public func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if let failure = pass.failure { throw failure }
        guard !pass.isAtEnd, !buffer.isEmpty else { return 0 }
        do {
            try cancellation.check()
            let count = try readKept(buffer) ?? fetch(buffer)
            if count == 0 { pass.isAtEnd = true }
            return count
        } catch {
            disconnect()
            pass.failure = error
            throw error
        }
    }

    /// Connects to an origin now instead of at the first read. Does nothing if no bytes are missing.
    ///
    /// - Throws: as `read`.
    public func connect() throws {
        do {
            try perform { origins throws(OriginFailure) in _ = try connection(to: origins) }
        } catch {
            pass.failure = error
            throw error
        }
    }

    /// The current connection, for tests.
    package var currentConnection: (any BlobConnection)? { pass.connection }

    /// Reads from the partial blob; nil at its end.
    private func readKept(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int? {
        guard let partial, pass.keeps, pass.offset < pass.keptEnd else { return nil }
        let count = (try? partial.read(into: buffer, at: pass.offset)) ?? 0
        guard count > 0 else {
            // The kept bytes cannot be read. This download continues from an origin, but appends nothing: there would be a gap.
            pass.keeps = false
            partial.clear()
            return nil
        }
        pass.offset += UInt64(count)
        return count
    }

    private func fetch(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if !pass.hasFetched {
            pass.hasFetched = true
            if pass.keptEnd > 0, pass.offset > 0 { observer?(.resumed(from: pass.offset)) }
        }
        return try perform { origins throws(OriginFailure) in
            while true {
                guard let connection = try connection(to: origins) else { return 0 }
                guard let count = try connection.read(into: buffer) else {
                    disconnect()
                    continue
                }
                received(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                return count
            }
        }
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        if pass.senders.last != pass.origin { pass.senders.append(pass.origin) }
        if pass.keeps { partial?.append(bytes) }
        pass.offset += UInt64(bytes.count)
        if pass.offset - pass.lastProgress >= Self.progressStep {
            pass.lastProgress = pass.offset
            pass.budget?.refill()
        }
    }

    /// Runs `attempt` with the current origin as often as its retry budget allows, then with the next one.
    private func perform<Value>(_ attempt: (any BlobOrigins) throws(OriginFailure) -> Value) throws -> Value {
        let origins = try currentOrigins()
        while pass.origin < origins.count {
            let budget = pass.budget ?? origins.retryBudget(of: pass.origin)
            pass.budget = budget
            do throws(OriginFailure) {
                return try retrying(budget, pass.pauses, willWait: report) { () throws(OriginFailure) in
                    do throws(OriginFailure) {
                        return try attempt(origins)
                    } catch {
                        disconnect()
                        throw error
                    }
                }
            } catch {
                guard error.concernsOrigin else { throw error.error }
                origins.gaveUp(pass.origin, error.error)
                pass.origin += 1
                pass.budget = nil
            }
        }
        throw origins.failure
    }

    private func currentOrigins() throws -> any BlobOrigins {
        if let origins = pass.origins { return origins }
        let origins = try findOrigins()
        let pauses = pass.pauses
        pass.links = [cancellation, origins.cancellation].compactMap { $0?.onCancel { pauses.cancel() } }
        pass.origins = origins
        return origins
    }

    private func report(_ failure: OriginFailure, _ pause: Duration) {
        observer?(.retrying(reason: "\(failure.error)", delay: pause))
    }

    /// The connection for the next bytes; nil if none are missing. An empty blob is requested once.
    private func connection(to origins: any BlobOrigins) throws(OriginFailure) -> (any BlobConnection)? {
        if let connection = pass.connection { return connection }
        if pass.offset == descriptor.size, descriptor.size > 0 { return nil }
        let connection = try origins.connect(pass.origin, from: pass.offset)
        if pass.hasConnected, pass.offset > 0 { observer?(.resumed(from: pass.offset)) }
        pass.hasConnected = true
        pass.connection = connection
        return connection
    }

    private func disconnect() {
        pass.connection?.close()
        pass.connection = nil
    }

    // MARK: Another pass

    /// What the error of a reader says about the content.
    public enum Verdict: Sendable {
        /// The content is wrong: the partial blob or an origin is at fault.
        case refused
        /// The content is what the descriptor names, but it cannot be used. The kept bytes are removed.
        case unusable
        /// The content exceeds a limit. The kept bytes stay, because the next pull may have a higher limit.
        case tooLarge
        /// The error says nothing about the content; for example, it could not be stored.
        case unrelated
    }

    /// Runs `body`, which reads and verifies the blob.
    ///
    /// If `body` refuses the content, the partial blob may be at fault: it is removed, and the whole blob is fetched again, once. If the
    /// content is refused without a partial blob, the origin is at fault, and the blob is fetched from the next origin, if there is one.
    ///
    /// - Parameters:
    ///   - verdict: what an error of `body` says about the content. It is not called for errors of `read`.
    ///   - body: reads the blob to its end and throws if the content is wrong. It may run more than once.
    /// - Throws: the last error of `body`.
    public func verified<Result>(
        by verdict: (any Error) -> Verdict = { _ in .refused }, _ body: (BlobDownload) throws -> Result
    ) throws -> Result {
        while true {
            do {
                return try body(self)
            } catch {
                guard pass.failure == nil, beginAgain(after: error, verdict(error)) else { throw error }
            }
        }
    }

    private func beginAgain(after error: any Error, _ verdict: Verdict) -> Bool {
        if case .unrelated = verdict { return false }
        disconnect()
        if pass.keptEnd > 0 {
            restart()
            return true
        }
        switch verdict {
        case .refused, .tooLarge:
            // An oversized blob can also come from an origin that sends other content.
            if let warning = pass.origins?.sentOtherContent(pass.senders, "\(error)") {
                observer?(.retrying(reason: warning, delay: .zero))
                restart()
                return true
            }
        case .unusable, .unrelated: break
        }
        if case .tooLarge = verdict {} else { partial?.clear() }
        return false
    }

    private func restart() {
        partial?.clear()
        pass = Self.firstPass(descriptor, start, partial)
    }
}
