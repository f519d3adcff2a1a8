internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsJSON

extension SnapshotDescriptor {
    /// Parses a document: every member of the schema and no other, in any order.
    ///
    /// - Throws: `SnapshotFormatError`.
    public init(parsing bytes: [UInt8]) throws(SnapshotFormatError) {
        guard bytes.count <= Self.byteLimit else { throw .tooLarge(limit: Self.byteLimit) }
        let document: JSONValue
        do { document = try JSONValue.parse(bytes, limits: JSONLimits(depth: 64, values: 100_000)) } catch { throw .json(error) }
        var top = try Members(document, "")
        try Self.checkKind(&top)
        let createdAt = try top.string("created_at")
        let parent = try top.optional("parent") { (value, path) throws(SnapshotFormatError) in try Self.digest(value, path) }
        var image = try top.object("image")
        let reference = try image.string("ref")
        let manifest = try image.digest("manifest_digest")
        try image.end()
        let sandbox = try top.optional("source_sandbox") { (value, path) throws(SnapshotFormatError) in try Members.string(value, path) }
        var state = try top.object("state")
        let kind = try state.string("kind")
        guard kind == "file" else { throw .notDisk(kind) }
        let formatText = try state.string("format")
        guard let format = DiskFormat(rawValue: formatText) else { throw .value("state.format", reason: "is neither raw nor qcow2") }
        let filesystem = try state.string("fstype")
        var upper = try state.object("upper")
        let file = try upper.string("file")
        let size = try upper.unsigned("size_bytes")
        let integrity = try upper.optional("integrity") { (value, path) throws(SnapshotFormatError) in
            try Self.integrity(value, path, size)
        }
        try upper.end()
        try state.end()
        var labels: [Label] = []
        for (key, value) in try top.object("labels").rest {
            labels.append(Label(key: key, value: try Members.string(value, "labels." + key)))
        }
        let extensions = try top.object("extensions").rest
        var requires: [String] = []
        for value in try top.array("requires") { requires.append(try Members.string(value, "requires")) }
        try top.end()
        try self.init(
            createdAt: createdAt, parent: parent, imageReference: reference, imageManifest: manifest, sourceSandbox: sandbox,
            format: format,
            filesystem: filesystem, file: file, size: size, integrity: integrity, labels: labels, extensions: extensions,
            requires: requires)
    }

    private static func checkKind(_ top: inout Members) throws(SnapshotFormatError) {
        let schema = try top.take("schema")
        guard schema.uint64 == self.schema else { throw .schema("\(schema)") }
        let artifact = try top.string("artifact")
        guard artifact == "snapshot" else { throw .value("artifact", reason: "is not \"snapshot\"") }
        let scope = try top.string("scope")
        guard scope == "disk" else { throw .notDisk(scope) }
    }

    private static func digest(_ value: JSONValue, _ path: String) throws(SnapshotFormatError) -> ContentDigest {
        guard let digest = ContentDigest(try Members.string(value, path)), digest.algorithm == .sha256 else {
            throw .value(path, reason: "is not sha256: and 64 lower-case hex digits")
        }
        return digest
    }

    private static func integrity(_ value: JSONValue, _ path: String, _ size: UInt64) throws(SnapshotFormatError) -> Integrity {
        var members = try Members(value, path)
        let algorithm = try members.string("algorithm")
        let found: Integrity
        switch algorithm {
        case Integrity.sha256Name: found = .sha256(try members.digest("digest"))
        case Integrity.sparseName: found = .sparseSHA256(try members.digest("digest"))
        case Integrity.merkleName:
            let root = try members.string("root")
            guard root.hasPrefix("blake3:"), let digest = Blake3Digest(hex: root.utf8.dropFirst(7)) else {
                throw .value(path + ".root", reason: "is not blake3: and 64 lower-case hex digits")
            }
            guard try members.unsigned("logical_size") == size else {
                throw .value(path + ".logical_size", reason: "is not the size of the disk")
            }
            guard try members.unsigned("leaf_size") == UInt64(UpperMerkleTree.leafSize) else {
                throw .value(path + ".leaf_size", reason: "is not \(UpperMerkleTree.leafSize)")
            }
            found = .merkle(digest)
        default: throw .value(path + ".algorithm", reason: "is unknown: \(JSONValue.string(algorithm))")
        }
        try members.end()
        return found
    }
}

/// The members of an object that have not been read yet.
private struct Members {
    private(set) var rest: JSONObject
    private let path: String

    init(_ value: JSONValue, _ path: String) throws(SnapshotFormatError) {
        guard let object = value.object else {
            throw .type(path.isEmpty ? SnapshotDescriptor.fileName : path, expected: "an object", found: value.kind)
        }
        rest = object
        self.path = path
    }

    private func path(of key: String) -> String { path.isEmpty ? key : path + "." + key }

    mutating func take(_ key: String) throws(SnapshotFormatError) -> JSONValue {
        guard let value = rest[key] else { throw .missing(path(of: key)) }
        rest[key] = nil
        return value
    }

    mutating func string(_ key: String) throws(SnapshotFormatError) -> String { try Self.string(try take(key), path(of: key)) }

    static func string(_ value: JSONValue, _ path: String) throws(SnapshotFormatError) -> String {
        guard let string = value.string else { throw .type(path, expected: "a string", found: value.kind) }
        return string
    }

    mutating func unsigned(_ key: String) throws(SnapshotFormatError) -> UInt64 {
        let value = try take(key)
        guard let number = value.uint64 else {
            throw value.kind == .number
                ? .value(path(of: key), reason: "is not a whole number") : .type(path(of: key), expected: "a number", found: value.kind)
        }
        return number
    }

    mutating func digest(_ key: String) throws(SnapshotFormatError) -> ContentDigest {
        guard let digest = ContentDigest(try string(key)), digest.algorithm == .sha256 else {
            throw .value(path(of: key), reason: "is not sha256: and 64 lower-case hex digits")
        }
        return digest
    }

    mutating func object(_ key: String) throws(SnapshotFormatError) -> Members { try Members(try take(key), path(of: key)) }

    mutating func array(_ key: String) throws(SnapshotFormatError) -> [JSONValue] {
        let value = try take(key)
        guard let array = value.array else { throw .type(path(of: key), expected: "an array", found: value.kind) }
        return array
    }

    /// The member must be there; its value may be null.
    mutating func optional<Value>(
        _ key: String, _ read: (JSONValue, String) throws(SnapshotFormatError) -> Value
    ) throws(SnapshotFormatError) -> Value? {
        let value = try take(key)
        return value.isNull ? nil : try read(value, path(of: key))
    }

    func end() throws(SnapshotFormatError) {
        if let member = rest.members.first { throw .unknownMember(path(of: member.key)) }
    }
}
