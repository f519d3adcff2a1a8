public import ComposefsConcurrency
public import ComposefsOCIModel

/// The beginning of a blob that an earlier download has kept, and that this one adds to. Its bytes are not trusted: they pass through the
/// same verification as those from an origin.
public protocol PartialBlob: AnyObject {
    /// In bytes.
    var length: UInt64 { get }
    /// Fills the front of `buffer` with what is kept from `offset` on; 0 at its end.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws -> Int
    /// Keeps the next bytes, if it can.
    func append(_ bytes: UnsafeRawBufferPointer)
    /// Forgets all bytes.
    func clear()
}

/// What happens to a blob on its way.
public enum BlobEvent: Sendable, Hashable {
    /// The transfer broke off; the next attempt comes after the delay.
    case retrying(reason: String, delay: Duration)
    /// The transfer goes on at this byte.
    case resumed(from: UInt64)
}

/// Receives the events of a blob's download, on the thread that reads it. It must not block.
public typealias BlobObserver = @Sendable (BlobEvent) -> Void

/// The bytes of one blob, from wherever they come: first what an earlier download has kept, then the first origin that has the rest.
///
/// A connection that breaks is continued where it broke, as often as the origin's budget allows; then the next origin goes on. The reader
/// sees each byte once and in order. It verifies size and digest itself, and if it refuses the content, `verified` begins again.
///
/// Used by one thread at a time.
public final class BlobDownload: BlobReader {
    /// A blob that grew by this many bytes has its attempts back.
    private static let progressStep: UInt64 = 64 << 10

    private let descriptor: Descriptor
    private let start: UInt64
    private let findOrigins: () throws -> any BlobOrigins
    private let partial: (any PartialBlob)?
    private let cancellation: Cancellation
    private let observer: BlobObserver?

    /// What the current pass over the blob's bytes has come to.
    private struct Pass {
        /// Bytes from the blob's beginning that the reader has.
        var offset: UInt64
        /// Where the kept bytes end; they come first.
        var keptEnd: UInt64
        /// Whether what comes is kept in turn.
        var keeps = true
        var origins: (any BlobOrigins)?
        /// Ends the pauses: on behalf of the caller, or of the origins.
        var pauses = Cancellation()
        var links: [Cancellation.Registration] = []
        var origin = 0
        var budget: RetryBudget?
        var connection: (any BlobConnection)?
        var hasFetched = false
        var hasConnected = false
        /// The origins whose bytes the reader has, in order.
        var senders: [Int] = []
        var progressMark: UInt64
        var isAtEnd = false
        /// Why reading has ended early.
        var failure: (any Error)?
    }

    private var pass: Pass

    /// - Parameters:
    ///   - offset: bytes that the caller has already.
    ///   - partial: what is kept of the blob; with it, `offset` is 0.
    ///   - cancellation: ends the download at the next read, and its pauses at once.
    ///   - origins: called for each pass over the blob: the origins that are left then.
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
        return Pass(offset: offset, keptEnd: partial?.length ?? 0, progressMark: offset)
    }

    deinit { pass.connection?.close() }

    // MARK: Reading

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

    /// Waits for an origin that begins to answer, instead of for the first read. A caller that has all of the blob waits for none.
    public func connect() throws {
        do {
            try perform { origins throws(OriginFailure) in _ = try connection(to: origins) }
        } catch {
            pass.failure = error
            throw error
        }
    }

    /// The connection that the next bytes come from, for tests.
    package var currentConnection: (any BlobConnection)? { pass.connection }

    /// Nil behind the kept bytes.
    private func readKept(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int? {
        guard let partial, pass.keeps, pass.offset < pass.keptEnd else { return nil }
        let count = (try? partial.read(into: buffer, at: pass.offset)) ?? 0
        guard count > 0 else {
            // The disk lost it. What has been read is good for this download, but nothing can be appended any more.
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
        if pass.offset - pass.progressMark >= Self.progressStep {
            pass.progressMark = pass.offset
            pass.budget?.refill()
        }
    }

    /// Runs `attempt` with the current origin as often as its budget allows, and then with the next one.
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

    /// Nil if nothing is missing. An empty blob is asked for once.
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

    // MARK: Beginning again

    /// What an error says of the content that was read.
    public enum Verdict: Sendable {
        /// The content is wrong: kept bytes or an origin are at fault.
        case refused
        /// The content is the right one, and cannot be taken. The kept bytes are of no use.
        case unusable
        /// The content is too large for a limit that may be another one the next time.
        case tooLarge
        /// Nothing: it could not be stored, for example.
        case unrelated
    }

    /// Runs `body`, which reads and verifies the blob. If it refuses the content, the kept bytes may be at fault: they are dropped, and the
    /// whole blob is fetched, once. After that its origin is: the blob is fetched from the next one, as long as there is one.
    ///
    /// - Parameter verdict: what an error of `body` says of the content; errors of reading itself are not asked about.
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
            // Any origin could send too much of something else.
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
