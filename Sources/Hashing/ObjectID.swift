internal import ComposefsBytes

/// A hash algorithm of fs-verity. The raw value is the kernel's number (`FS_VERITY_HASH_ALG_*`, linux/fsverity.h).
public enum VerityAlgorithm: UInt8, Sendable, Hashable, CaseIterable, BitwiseCopyable {
    case sha256 = 1
    case sha512 = 2

    /// The length of a digest in bytes.
    @inlinable public var digestSize: Int { self == .sha256 ? 32 : 64 }

    /// `sha256` or `sha512`.
    public var name: String { self == .sha256 ? "sha256" : "sha512" }

    public init?(name: String) {
        switch name {
        case "sha256": self = .sha256
        case "sha512": self = .sha512
        default: return nil
        }
    }
}

/// The name of an object: the fs-verity digest of its content (4096-byte blocks, no salt), never a plain hash.
public struct ObjectID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let algorithm: VerityAlgorithm
    // Stored in line, so that a million identifiers need no allocation. SHA-256 leaves the second half zero.
    @usableFromInline let words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)

    /// Nil when the length of `bytes` does not match the algorithm.
    public init?(algorithm: VerityAlgorithm, bytes: UnsafeRawBufferPointer) {
        guard bytes.count == algorithm.digestSize else { return nil }
        self.algorithm = algorithm
        var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
        withUnsafeMutableBytes(of: &words) { $0.copyMemory(from: bytes) }
        self.words = words
    }

    /// Nil when the length of `bytes` does not match the algorithm.
    public init?(algorithm: VerityAlgorithm, bytes: some Collection<UInt8>) {
        let array = Array(bytes)
        guard let id = array.withUnsafeBytes({ ObjectID(algorithm: algorithm, bytes: $0) }) else { return nil }
        self = id
    }

    /// Nil unless `hex` is 64 (SHA-256) or 128 (SHA-512) lower-case hex digits.
    public init?(hex: some Collection<UInt8>) {
        guard let bytes = Hex.decode(hex) else { return nil }
        switch bytes.count {
        case 32: self.init(algorithm: .sha256, bytes: bytes)
        case 64: self.init(algorithm: .sha512, bytes: bytes)
        default: return nil
        }
    }

    public init?(hex: String) { self.init(hex: hex.utf8) }

    /// Parses `XX/rest`, a path below a repository's `objects/`. The lengths of the parts determine the algorithm.
    public init?(objectPath: some Collection<UInt8>) {
        var path = Array(objectPath)
        guard path.count > 2, path[2] == UInt8(ascii: "/") else { return nil }
        path.remove(at: 2)
        self.init(hex: path)
    }

    @inlinable
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try Swift.withUnsafeBytes(of: words) { (all: UnsafeRawBufferPointer) throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(rebasing: all[..<algorithm.digestSize]))
        }
    }

    public var bytes: [UInt8] { withUnsafeBytes { Array($0) } }

    /// 64 or 128 lower-case hex digits.
    public var hex: String { Hex.encode(bytes) }

    /// `XX/rest`: the object's path below `objects/`.
    public var objectPath: String {
        let hex = hex
        return hex.prefix(2) + "/" + hex.dropFirst(2)
    }

    public var description: String { hex }

    @inlinable
    public static func == (lhs: ObjectID, rhs: ObjectID) -> Bool {
        lhs.algorithm == rhs.algorithm && lhs.words.0 == rhs.words.0 && lhs.words.1 == rhs.words.1 && lhs.words.2 == rhs.words.2
            && lhs.words.3 == rhs.words.3 && lhs.words.4 == rhs.words.4 && lhs.words.5 == rhs.words.5 && lhs.words.6 == rhs.words.6
            && lhs.words.7 == rhs.words.7
    }

    @inlinable
    public func hash(into hasher: inout Hasher) {
        // All bytes are hashed: the author of an image can choose digests with a common prefix.
        withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    public static func < (lhs: ObjectID, rhs: ObjectID) -> Bool {
        lhs.withUnsafeBytes { l in rhs.withUnsafeBytes { r in compareBytes(l, r) < 0 } }
    }
}
