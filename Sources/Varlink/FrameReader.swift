/// A message that cannot be understood. The connection must end: what follows cannot be told apart.
public enum VarlinkFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// A message is longer than the limit in bytes.
    case tooLong(limit: Int)
    /// A message is not JSON; the text says why.
    case notJSON(String)
    /// A message is no call.
    case notCall(String)

    public var description: String {
        switch self {
        case .tooLong(let limit): "a message has more than \(limit) bytes"
        case .notJSON(let reason): "a message is \(reason)"
        case .notCall(let reason): "a message is no call: \(reason)"
        }
    }
}

/// Takes a stream of bytes apart into messages. Each ends with a NUL, which JSON does not contain.
public struct FrameReader: Sendable {
    /// The largest number of bytes of a message.
    public let limit: Int
    /// Bytes that belong to no complete message that was returned, from `first` on.
    private var bytes: [UInt8] = []
    private var first = 0
    /// Bytes from here on have not been searched for a NUL.
    private var searched = 0

    public init(limit: Int) { self.limit = limit }

    /// Whether a message has begun and not ended.
    public var isInsideMessage: Bool { first < bytes.count }

    public mutating func append(_ new: UnsafeRawBufferPointer) {
        if first == bytes.count {
            bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
            (first, searched) = (0, 0)
        } else if first >= 1 << 16 {
            bytes.removeFirst(first)
            (first, searched) = (0, searched - first)
        }
        bytes.append(contentsOf: new)
    }

    /// The next complete message without its NUL; nil if there is none yet.
    ///
    /// - Throws: `VarlinkFault.tooLong`, also before the end of the message has arrived.
    public mutating func next() throws(VarlinkFault) -> [UInt8]? {
        guard let end = bytes[searched...].firstIndex(of: 0) else {
            searched = bytes.count
            guard bytes.count - first <= limit else { throw .tooLong(limit: limit) }
            return nil
        }
        guard end - first <= limit else { throw .tooLong(limit: limit) }
        let message = Array(bytes[first..<end])
        first = end + 1
        searched = first
        return message
    }
}
