public import ComposefsConcurrency

/// The origins of one blob (for example mirrors and the registry), in the order in which they are tried.
///
/// Created for one download; used by one thread at a time. An origin is identified by its index.
public protocol BlobOrigins: AnyObject {
    /// The number of origins.
    var count: Int { get }

    /// Ends pauses in addition to the caller's cancellation; nil if there is no such value.
    var cancellation: Cancellation? { get }

    /// The attempts for one origin.
    func retryBudget(of origin: Int) -> RetryBudget

    /// Makes one attempt to read the blob from `offset` on.
    func connect(_ origin: Int, from offset: UInt64) throws(OriginFailure) -> any BlobConnection

    /// Reports that an origin has failed finally, and the next one is tried.
    func gaveUp(_ origin: Int, _ error: any Error)

    /// Reports that the bytes that these origins sent, together, are not the blob.
    ///
    /// - Returns: a warning of one line if another pass can use other origins; nil if there are none.
    func sentOtherContent(_ origins: [Int], _ reason: String) -> String?

    /// The error to throw if all origins have failed.
    var failure: any Error { get }
}

/// A connection to one origin, from which a blob is read.
public protocol BlobConnection: AnyObject {
    /// Reads the next bytes into the front of `buffer`.
    ///
    /// - Returns: their number; 0 at the end of the blob; nil if this connection ends before the blob does, and another one has to be
    ///   opened.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int?

    /// Closes the connection. No call follows.
    func close()
}

/// Why an origin did not provide a blob, or the rest of it.
public struct OriginFailure: AttemptFailure {
    /// The cause.
    public var error: any Error
    /// Whether another attempt with the same origin makes sense.
    public var retry: Retry
    /// Whether another origin may succeed.
    public var concernsOrigin: Bool
    /// The error to report if the download is cancelled during the pause before the next attempt.
    public var cancelled: any Error

    public init(_ error: any Error, retry: Retry = .never, concernsOrigin: Bool = false, cancelled: any Error = CancellationError()) {
        self.error = error
        self.retry = retry
        self.concernsOrigin = concernsOrigin
        self.cancelled = cancelled
    }

    public var whenCancelled: OriginFailure { OriginFailure(cancelled) }
}

/// The only origin of a blob on this machine. A failure is final: there is no retry.
public final class LocalOrigin: BlobOrigins {
    private let open: (_ offset: UInt64) throws -> any BlobReader
    private var error: (any Error)?

    /// - Parameter open: opens the blob at the offset.
    public init(openingAt open: @escaping (_ offset: UInt64) throws -> any BlobReader) { self.open = open }

    /// - Parameter open: opens the blob at its beginning. To start at an offset, the bytes before it are read and discarded.
    public convenience init(_ open: @escaping () throws -> any BlobReader) {
        self.init(openingAt: { offset in
            let reader = try open()
            if offset > 0 { try Self.skip(offset, of: reader) }
            return reader
        })
    }

    public var count: Int { 1 }
    public var cancellation: Cancellation? { nil }
    public func retryBudget(of origin: Int) -> RetryBudget { RetryBudget(RetryPolicy()) }

    public func connect(_ origin: Int, from offset: UInt64) throws(OriginFailure) -> any BlobConnection {
        do {
            return LocalConnection(try open(offset))
        } catch {
            throw OriginFailure(error)
        }
    }

    public func gaveUp(_ origin: Int, _ error: any Error) { self.error = error }
    public func sentOtherContent(_ origins: [Int], _ reason: String) -> String? { nil }
    public var failure: any Error { error ?? CancellationError() }

    /// Reads and discards `count` bytes. An early end is detected when the blob is verified.
    private static func skip(_ count: UInt64, of reader: any BlobReader) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)
        defer { buffer.deallocate() }
        var rest = count
        while rest > 0 {
            let read = try reader.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(min(UInt64(buffer.count), rest))]))
            if read == 0 { return }
            rest -= UInt64(read)
        }
    }
}

private final class LocalConnection: BlobConnection {
    private let reader: any BlobReader

    init(_ reader: any BlobReader) { self.reader = reader }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int? {
        do {
            return try reader.read(into: buffer)
        } catch {
            throw OriginFailure(error)
        }
    }

    func close() {}
}
