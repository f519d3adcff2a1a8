public import ComposefsConcurrency

/// Where the bytes of one blob may be had: origins, in the order in which they are asked. Made for one download and used by one thread at a
/// time.
public protocol BlobOrigins: AnyObject {
    var count: Int { get }

    /// Ends the waits of these origins; nil if only the caller does.
    var cancellation: Cancellation? { get }

    /// The attempts that an origin is worth.
    func retryBudget(of origin: Int) -> RetryBudget

    /// Begins the blob's bytes from an offset on: one attempt.
    func connect(_ origin: Int, from offset: UInt64) throws(OriginFailure) -> any BlobConnection

    /// An origin has failed for good; the next one is asked.
    func gaveUp(_ origin: Int, _ error: any Error)

    /// What these origins sent, together, is not the blob. Returns a warning, one line, if another download may find the right bytes
    /// elsewhere; nil if there is no other origin.
    func sentOtherContent(_ origins: [Int], _ reason: String) -> String?

    /// The error of a download that all origins have failed.
    var failure: any Error { get }
}

/// Bytes of a blob on their way from one origin.
public protocol BlobConnection: AnyObject {
    /// Fills the front of `buffer`. Returns the number of bytes, 0 at the end of the blob, nil at the end of this connection: the rest
    /// comes with the next one.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(OriginFailure) -> Int?

    /// No more bytes are wanted.
    func close()
}

/// Why an origin did not give a blob, or the rest of it.
public struct OriginFailure: AttemptFailure {
    public var error: any Error
    public var retry: Retry
    /// Whether another origin may do better.
    public var concernsOrigin: Bool
    /// The error to report if the caller cancels instead of waiting for another attempt.
    public var cancelled: any Error

    public init(_ error: any Error, retry: Retry = .never, concernsOrigin: Bool = false, cancelled: any Error = CancellationError()) {
        self.error = error
        self.retry = retry
        self.concernsOrigin = concernsOrigin
        self.cancelled = cancelled
    }

    public var whenCancelled: OriginFailure { OriginFailure(cancelled) }
}

/// The only origin of a blob that is on this machine. What cannot be read is not asked for again.
public final class LocalOrigin: BlobOrigins {
    private let open: (_ offset: UInt64) throws -> any BlobReader
    private var error: (any Error)?

    /// - Parameter open: returns the blob's bytes from the offset on.
    public init(openingAt open: @escaping (_ offset: UInt64) throws -> any BlobReader) { self.open = open }

    /// - Parameter open: returns the blob's bytes from the first one on. Those before an offset are read and dropped.
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

    /// The verification of the blob notices an early end.
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
