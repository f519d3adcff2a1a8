public import ComposefsBytes

/// The address of a varlink service: `unix:PATH`, `unix:PATH;mode=0660`, or the path alone.
public struct VarlinkAddress: Hashable, Sendable {
    /// An absolute path.
    public var path: ByteString
    /// The permission bits of the socket.
    public var mode: UInt32 = 0o600

    /// Why a text is no address.
    public enum Fault: Error, Hashable, Sendable, CustomStringConvertible {
        /// `tcp:`, `device:` and the like.
        case unsupported(String)
        /// Any local process may connect to an abstract socket.
        case abstract
        case relative
        case property(String)

        public var description: String {
            switch self {
            case .unsupported(let scheme): "\(ByteString(scheme)): is not served; use unix:/PATH"
            case .abstract: "abstract sockets have no permissions; use unix:/PATH"
            case .relative: "the path of the socket must begin with a slash"
            case .property(let text): "\"\(ByteString(text))\" is no property of an address; there is mode=, three or four octal digits"
            }
        }
    }

    public init(parsing text: ByteString) throws(Fault) {
        var bytes = text.bytes[...]
        if let first = bytes.first, first != UInt8(ascii: "/") {
            let scheme = String(decoding: bytes.prefix { $0 != UInt8(ascii: ":") }, as: UTF8.self)
            guard scheme.utf8.count < bytes.count else { throw .relative }
            guard scheme == "unix" else { throw .unsupported(scheme) }
            bytes = bytes.dropFirst(5)
        }
        let parts = bytes.split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false)
        path = ByteString(parts.first ?? [])
        guard path.bytes.first != UInt8(ascii: "@") else { throw .abstract }
        guard path.bytes.first == UInt8(ascii: "/"), path.bytes.last != UInt8(ascii: "/") else { throw .relative }
        for part in parts.dropFirst() {
            let text = String(decoding: part, as: UTF8.self)
            guard text.hasPrefix("mode="), (3...4).contains(text.utf8.count - 5), let mode = UInt32(text.dropFirst(5), radix: 8),
                mode <= 0o777
            else { throw .property(text) }
            self.mode = mode
        }
    }
}
