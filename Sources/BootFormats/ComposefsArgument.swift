public import ComposefsBytes
public import ComposefsHashing

/// The kernel argument that names the composefs image of the root file system.
///
/// Two forms exist. Images of format 0 and 1 have `composefs.digest=v1-sha512-12:HEX`: the format, the algorithm of fs-verity, the logarithm of
/// its block size, and the image's fs-verity digest. Images of format 2 have `composefs=HEX`, whose length tells the algorithm. A `?` before the
/// value allows a repository without fs-verity.
public struct ComposefsArgument: Sendable, Equatable, CustomStringConvertible {
    /// The generation of the image format, as the argument counts: `v1` is formats 0 and 1.
    public enum Format: Int, Sendable, CaseIterable {
        case v1 = 1
        case v2 = 2
    }

    public var id: ObjectID
    public var format: Format
    /// A repository without fs-verity is accepted.
    public var allowsInsecure: Bool

    public init(_ id: ObjectID, _ format: Format, allowsInsecure: Bool = false) {
        self.id = id
        self.format = format
        self.allowsInsecure = allowsInsecure
    }

    static let digestKey: ByteString = "composefs.digest"
    static let plainKey: ByteString = "composefs"

    /// The key that is written: `composefs.digest` or `composefs`.
    public var key: ByteString { format == .v1 ? Self.digestKey : Self.plainKey }

    public var text: ByteString {
        let mark = allowsInsecure ? "?" : ""
        switch format {
        case .v1: return ByteString("\(key)=\(mark)v1-\(id.algorithm.name)-12:\(id.hex)")
        case .v2: return ByteString("\(key)=\(mark)\(id.hex)")
        }
    }

    public var description: String { text.description }

    /// Parses one kernel argument. Nil if its key is another.
    ///
    /// - Throws: `ComposefsArgumentError` if the key is that of this argument, and the value is not of its form.
    public init?(_ argument: ByteString) throws(ComposefsArgumentError) {
        let parts = argument.bytes.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
        let key = ByteString(parts[0])
        guard key == Self.digestKey || key == Self.plainKey else { return nil }
        let whole = parts.count == 2 ? ByteString(parts[1]) : ByteString()
        func refused(_ reason: ComposefsArgumentError.Reason) -> ComposefsArgumentError {
            ComposefsArgumentError(key: key, value: whole, reason: reason)
        }
        guard !whole.isEmpty else { throw refused(.noValue) }
        var value = whole.bytes[...]
        allowsInsecure = value.first == UInt8(ascii: "?")
        if allowsInsecure { value = value.dropFirst() }
        guard key == Self.digestKey else {
            guard let id = ObjectID(hex: value) else { throw refused(.digest) }
            self.id = id
            format = .v2
            return
        }
        guard let colon = value.firstIndex(of: UInt8(ascii: ":")) else { throw refused(.noAlgorithm) }
        let fields = value[..<colon].split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false).map { ByteString($0) }
        guard fields.count == 3 else { throw refused(.noAlgorithm) }
        switch fields[0] {
        case "v1": format = .v1
        case "v2": format = .v2
        default: throw refused(.format)
        }
        guard let algorithm = fields[1].utf8Text.flatMap(VerityAlgorithm.init(name:)) else { throw refused(.algorithm) }
        // The repository's block size is 4,096 bytes; other sizes would give other digests.
        guard fields[2] == "12" else { throw refused(.blockSize) }
        guard let id = ObjectID(hex: value[(colon + 1)...]), id.algorithm == algorithm else { throw refused(.digest) }
        self.id = id
    }
}

/// A kernel argument that has the key of `ComposefsArgument`, but not its form.
public struct ComposefsArgumentError: Error, Equatable, CustomStringConvertible {
    public enum Reason: Sendable, Equatable {
        case noValue, noAlgorithm, format, algorithm, blockSize, digest
    }

    public var key: ByteString
    public var value: ByteString
    public var reason: Reason

    public var description: String {
        let cause =
            switch reason {
            case .noValue: "it has no value"
            case .noAlgorithm: "the value is not of the form v1-ALGORITHM-12:HEX"
            case .format: "only the formats v1 and v2 are known"
            case .algorithm: "the algorithm is neither sha256 nor sha512"
            case .blockSize: "the block size is not 12 (4,096 bytes)"
            case .digest: "the digest is not 64 (sha256) or 128 (sha512) lower-case hexadecimal digits"
            }
        return "kernel argument \(key)=\(value): \(cause)"
    }
}

extension KernelCommandLine {
    /// All arguments that name an image, in their order.
    ///
    /// - Throws: `ComposefsArgumentError` for the first one with a value of another form.
    public func composefsArguments() throws(ComposefsArgumentError) -> [ComposefsArgument] {
        var found: [ComposefsArgument] = []
        for argument in arguments {
            if let image = try ComposefsArgument(argument) { found.append(image) }
        }
        return found
    }

    /// The argument that counts for a repository of `algorithm`: the first `composefs.digest` with this algorithm, else the first `composefs`
    /// with it. Nil if there is none.
    ///
    /// - Throws: `ComposefsArgumentError` if any of them has a value of another form.
    public func composefsArgument(for algorithm: VerityAlgorithm) throws(ComposefsArgumentError) -> ComposefsArgument? {
        var plain: ComposefsArgument?
        var exact: ComposefsArgument?
        for argument in arguments {
            guard let image = try ComposefsArgument(argument), image.id.algorithm == algorithm else { continue }
            if argument.hasPrefix(ComposefsArgument.digestKey) { exact = exact ?? image } else { plain = plain ?? image }
        }
        return exact ?? plain
    }
}
