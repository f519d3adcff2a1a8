public import ComposefsBytes

/// Something that a stack of layers cannot show.
public struct StackException: Hashable, Sendable, Codable, CustomStringConvertible {
    public enum Kind: String, Hashable, Sendable, Codable {
        /// A character device 0:0, which is a whiteout for overlayfs: the name is missing.
        case whiteoutDevice
        /// A hard link to a file of a lower layer: it is a copy.
        case linkAcrossLayers
    }

    public var kind: Kind
    /// Absolute.
    public var path: ByteString

    package init(kind: Kind, path: ByteString) {
        self.kind = kind
        self.path = path
    }

    public var description: String {
        switch kind {
        case .whiteoutDevice: "\(path) is a character device 0:0, which overlayfs cannot show"
        case .linkAcrossLayers: "\(path) is a hard link to a file of a lower layer; in a stack it is a copy"
        }
    }
}

/// What a stack of layers cannot show, in the order of the layers. An image can have hundreds of thousands of links across layers: they are stored as
/// the text that the stream of a kept disk has, and `count` takes time in proportion to its length.
public struct StackExceptions: Collection, Sendable, Hashable, Codable, ExpressibleByArrayLiteral {
    /// For each exception `KIND:PATH` and a zero byte.
    private var text: LargeArray<UInt8>

    /// A position in the text.
    public struct Index: Comparable, Sendable {
        fileprivate var offset: Int
        public static func < (lhs: Index, rhs: Index) -> Bool { lhs.offset < rhs.offset }
    }

    public init() { self.init(in: HeapMemory.shared) }

    init(in memory: any LargeMemory) { text = LargeArray(in: memory) }

    public init(arrayLiteral exceptions: StackException...) {
        self.init()
        for exception in exceptions { append(exception) }
    }

    /// Nil if the text has another form.
    package init?(text: [UInt8]) {
        self.init()
        var start = 0
        for end in text.indices where text[end] == 0 {
            let line = text[start..<end]
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), Self.kind(line[..<colon]) != nil else { return nil }
            start = end + 1
        }
        guard start == text.count else { return nil }
        text.withUnsafeBufferPointer { self.text.append(contentsOf: $0) }
    }

    package mutating func append(_ exception: StackException) {
        let line = Array("\(exception.kind.rawValue):".utf8) + exception.path.bytes + [0]
        line.withUnsafeBufferPointer { text.append(contentsOf: $0) }
    }

    package mutating func append(contentsOf others: StackExceptions) {
        if text.isEmpty {
            self = others
        } else {
            others.withParts { part in part.withMemoryRebound(to: UInt8.self) { text.append(contentsOf: $0) } }
        }
    }

    /// The length of the text, in bytes.
    package var byteCount: Int { text.count }

    /// Passes the text to `body`, in parts.
    package func withParts<Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
        for start in stride(from: 0, to: text.count, by: Self.partSize) {
            try text.withElements(start..<Swift.min(start + Self.partSize, text.count)) { (part) throws(Failure) in
                try body(UnsafeRawBufferPointer(part))
            }
        }
    }

    private static let partSize = 1 << 20

    // MARK: Collection

    public var isEmpty: Bool { text.isEmpty }
    public var startIndex: Index { Index(offset: 0) }
    public var endIndex: Index { Index(offset: text.count) }
    public func index(after index: Index) -> Index { Index(offset: end(of: index) + 1) }

    public subscript(index: Index) -> StackException {
        text.withElements(index.offset..<end(of: index)) { line in
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), let kind = Self.kind(line[..<colon]) else {
                preconditionFailure("a line that was not checked")
            }
            return StackException(kind: kind, path: ByteString(Array(line[(colon + 1)...])))
        }
    }

    /// Of the zero byte.
    private func end(of index: Index) -> Int {
        var at = index.offset
        while text[at] != 0 { at += 1 }
        return at
    }

    private static func kind(_ name: some Collection<UInt8>) -> StackException.Kind? {
        ByteString(Array(name)).utf8Text.flatMap(StackException.Kind.init)
    }

    // MARK: Equality and coding

    public static func == (lhs: StackExceptions, rhs: StackExceptions) -> Bool {
        lhs.text.count == rhs.text.count && lhs.text.indices.allSatisfy { lhs.text[$0] == rhs.text[$0] }
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(text.count)
        withParts { hasher.combine(bytes: $0) }
    }

    /// From an array of exceptions.
    public init(from decoder: any Decoder) throws {
        self.init()
        var list = try decoder.unkeyedContainer()
        while !list.isAtEnd {
            let exception = try list.decode(StackException.self)
            guard !exception.path.bytes.contains(0) else {
                throw DecodingError.dataCorruptedError(in: list, debugDescription: "a path holds a NUL byte")
            }
            append(exception)
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var list = encoder.unkeyedContainer()
        for exception in self { try list.encode(exception) }
    }
}
