internal import ComposefsBytes
public import ComposefsHashing
public import ComposefsJSON

/// What `snapshot.json` says: schema 1 of microsandbox 0.6.7 to 0.6.18, with the state of a disk.
///
/// All values are valid, so `canonicalBytes` cannot fail. Strings are compared and ordered by their UTF-8 bytes.
public struct SnapshotDescriptor: Sendable, Hashable {
    /// The format of the disk's file.
    public enum DiskFormat: String, Sendable, Hashable, CaseIterable {
        case raw, qcow2
    }

    /// What proves the content of the disk's file.
    public enum Integrity: Sendable, Hashable {
        /// SHA-256 of the file.
        case sha256(ContentDigest)
        /// SHA-256 of `msb-sparse-sha256-v1`, a zero byte, the size as eight little-endian bytes, and the file.
        case sparseSHA256(ContentDigest)
        /// The root of `UpperMerkleTree`.
        case merkle(Blake3Digest)
    }

    /// A member of an object of strings.
    public struct Label: Sendable, Hashable {
        public let key: String
        public let value: String

        public init(key: String, value: String) {
            self.key = key
            self.value = value
        }

        public static func == (left: Label, right: Label) -> Bool {
            left.key.utf8.elementsEqual(right.key.utf8) && left.value.utf8.elementsEqual(right.value.utf8)
        }
    }

    /// The schema's number.
    public static let schema: UInt64 = 1
    /// The name of the document in a directory.
    public static let fileName = "snapshot.json"
    /// The usual name of a disk's file beside the document.
    public static let upperFileName = "upper.ext4"
    /// The largest document, in bytes.
    public static let byteLimit = 1 << 20
    /// The largest size of a disk in bytes: the integers that every JSON implementation keeps.
    public static let sizeLimit: UInt64 = (1 << 53) - 1

    /// When the snapshot was made: RFC 3339 in UTC, with as many digits after the second as needed.
    public let createdAt: String
    /// The identity of the snapshot that this one follows; SHA-256.
    public let parent: ContentDigest?
    /// The name of the image whose files the disk changes. Not empty.
    public let imageReference: String
    /// The digest of the image's manifest; SHA-256.
    public let imageManifest: ContentDigest
    /// The virtual machine that the disk belongs to.
    public let sourceSandbox: String?
    public let format: DiskFormat
    /// The file system on the disk, such as `ext4`. Not empty.
    public let filesystem: String
    /// The name of the disk's file beside the document: one component.
    public let file: String
    /// The size of the disk's file in bytes, with holes.
    public let size: UInt64
    public let integrity: Integrity?
    /// In ascending order of the keys.
    public let labels: [Label]
    /// Values of other programs, with members in ascending order at every level.
    public let extensions: JSONObject
    /// The extensions that a program must know to use the snapshot, ascending.
    public let requires: [String]

    /// - Parameters:
    ///   - createdAt: RFC 3339 in any time zone.
    ///   - labels: in any order, with unique keys.
    ///   - extensions: numbers are integers.
    ///   - requires: ascending; members of `extensions`.
    /// - Throws: `SnapshotFormatError.value` for what the schema does not allow.
    public init(
        createdAt: String, parent: ContentDigest? = nil, imageReference: String, imageManifest: ContentDigest, sourceSandbox: String? = nil,
        format: DiskFormat = .raw, filesystem: String = "ext4", file: String = SnapshotDescriptor.upperFileName, size: UInt64,
        integrity: Integrity?, labels: [Label] = [], extensions: JSONObject = JSONObject(), requires: [String] = []
    ) throws(SnapshotFormatError) {
        self.createdAt = try Self.normalizedTime(createdAt)
        self.parent = parent
        self.imageReference = imageReference
        self.imageManifest = imageManifest
        self.sourceSandbox = sourceSandbox
        self.format = format
        self.filesystem = filesystem
        self.file = file
        self.size = size
        self.integrity = integrity
        self.labels = labels.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        self.extensions = JSONObject(sorting: extensions)
        self.requires = requires
        try validate()
    }

    /// SHA-256 of the canonical document.
    public var identity: ContentDigest { .of(canonicalBytes) }

    /// The document with the members in the order of the schema, those of labels and extensions in ascending order, and no white space.
    public var canonicalBytes: [UInt8] {
        let upper: JSONValue = ["file": .string(file), "size_bytes": JSONValue(size), "integrity": integrity?.document(size) ?? .null]
        let document: JSONValue = [
            "schema": JSONValue(Self.schema), "artifact": "snapshot", "scope": "disk", "created_at": .string(createdAt),
            "parent": parent.map { .string($0.description) } ?? .null,
            "image": ["ref": .string(imageReference), "manifest_digest": .string(imageManifest.description)],
            "source_sandbox": sourceSandbox.map { .string($0) } ?? .null,
            "state": ["kind": "file", "format": .string(format.rawValue), "fstype": .string(filesystem), "upper": upper],
            "labels": .object(JSONObject(labels.map { (key: $0.key, value: .string($0.value)) })), "extensions": .object(extensions),
            "requires": .array(requires.map { .string($0) }),
        ]
        return document.compactBytes
    }

    // MARK: Rules

    /// Names that a directory has for other files.
    private static let reservedNames = [fileName, "manifest.json", ".manifest.json.legacy", ".snapshot-migration.lock"]

    private func validate() throws(SnapshotFormatError) {
        guard imageManifest.algorithm == .sha256 else { throw .value("image.manifest_digest", reason: "is not a SHA-256 digest") }
        guard parent?.algorithm ?? .sha256 == .sha256 else { throw .value("parent", reason: "is not a SHA-256 digest") }
        guard !imageReference.isEmpty else { throw .value("image.ref", reason: "is empty") }
        guard !filesystem.isEmpty else { throw .value("state.fstype", reason: "is empty") }
        guard Self.isFileName(file) else { throw .value("state.upper.file", reason: "does not name a file in the directory") }
        guard !Self.reservedNames.contains(where: { $0.utf8.elementsEqual(file.utf8) }) else {
            throw .value("state.upper.file", reason: "is a reserved name")
        }
        guard size <= Self.sizeLimit else { throw .value("state.upper.size_bytes", reason: "is larger than \(Self.sizeLimit)") }
        switch integrity {
        case .sha256(let digest)?, .sparseSHA256(let digest)?:
            guard digest.algorithm == .sha256 else { throw .value("state.upper.integrity.digest", reason: "is not a SHA-256 digest") }
        case .merkle?, nil: break
        }
        for (label, next) in zip(labels, labels.dropFirst()) where label.key.utf8.elementsEqual(next.key.utf8) {
            throw .value("labels", reason: "has the key \(JSONValue.string(label.key)) twice")
        }
        try checkExtensions()
        guard canonicalBytes.count <= Self.byteLimit else { throw .tooLarge(limit: Self.byteLimit) }
    }

    private func checkExtensions() throws(SnapshotFormatError) {
        for (key, value) in extensions where !value.hasOnlyIntegers {
            throw .value("extensions", reason: "has a number that is not an integer below \(JSONValue.string(key))")
        }
        for (index, key) in requires.enumerated() {
            guard extensions[key] != nil else { throw .value("requires", reason: "names \(JSONValue.string(key)), which is no extension") }
            if index > 0, !requires[index - 1].utf8.lexicographicallyPrecedes(key.utf8) {
                throw .value("requires", reason: "is not in ascending order")
            }
        }
    }

    private static func isFileName(_ name: String) -> Bool {
        !name.isEmpty && name != "." && name != ".." && name.utf8.count <= 255 && !name.utf8.contains(UInt8(ascii: "/"))
            && !name.utf8.contains(0)
    }

    /// RFC 3339 in UTC.
    private static func normalizedTime(_ text: String) throws(SnapshotFormatError) -> String {
        guard let time = RFC3339.parse(text) else { throw .value("created_at", reason: "is not an RFC 3339 time") }
        let normalized = RFC3339.text(time.seconds, nanoseconds: time.nanoseconds)
        // Other implementations keep a leap second, and write years outside of the range differently.
        guard !Array(text.utf8.dropFirst(17).prefix(2)).elementsEqual("60".utf8), let again = RFC3339.parse(normalized), again == time
        else {
            throw .value("created_at", reason: "is a leap second or outside the years 0 to 9999")
        }
        return normalized
    }
}

extension SnapshotDescriptor.Integrity {
    static let sha256Name = "sha256"
    static let sparseName = "msb-sparse-sha256-v1"
    static let merkleName = "msb-file-merkle-blake3-v1"

    /// The name of the algorithm in the document.
    public var algorithm: String {
        switch self {
        case .sha256: Self.sha256Name
        case .sparseSHA256: Self.sparseName
        case .merkle: Self.merkleName
        }
    }

    /// The digest or root, with its algorithm: `sha256:…` or `blake3:…`.
    public var value: String {
        switch self {
        case .sha256(let digest), .sparseSHA256(let digest): digest.description
        case .merkle(let root): "blake3:\(root)"
        }
    }

    fileprivate func document(_ size: UInt64) -> JSONValue {
        switch self {
        case .sha256, .sparseSHA256: ["algorithm": .string(algorithm), "digest": .string(value)]
        case .merkle:
            [
                "algorithm": .string(algorithm), "root": .string(value), "logical_size": JSONValue(size),
                "leaf_size": JSONValue(UInt64(UpperMerkleTree.leafSize)),
            ]
        }
    }
}

extension JSONObject {
    /// The same object with members in ascending order at every level.
    fileprivate init(sorting object: JSONObject) {
        self.init(
            object.members.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }.map { (key: $0.key, value: $0.value.sorted) })
    }
}

extension JSONValue {
    fileprivate var sorted: JSONValue {
        switch self {
        case .array(let elements): .array(elements.map(\.sorted))
        case .object(let object): .object(JSONObject(sorting: object))
        default: self
        }
    }

    fileprivate var hasOnlyIntegers: Bool {
        switch self {
        case .double: false
        case .array(let elements): elements.allSatisfy(\.hasOnlyIntegers)
        case .object(let object): object.allSatisfy { $0.value.hasOnlyIntegers }
        default: true
        }
    }
}
