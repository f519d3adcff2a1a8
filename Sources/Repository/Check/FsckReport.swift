public import ComposefsBytes
public import ComposefsHashing

/// One fault that fsck found.
public struct FsckProblem: Hashable, Sendable, CustomStringConvertible {
    /// The raw value is the fault's name in text and JSON.
    public enum Kind: String, Sendable, CaseIterable {
        case metadataParseFailed = "metadata-parse-failed"
        case metadataAlgorithmMismatch = "metadata-algorithm-mismatch"
        /// The file can be read, but no program writes it in this form.
        case metadataDamaged = "metadata-damaged"
        case objectInvalidName = "object-invalid-name"
        case objectOpenFailed = "object-open-failed"
        case objectDigestMismatch = "object-digest-mismatch"
        case objectVerityMissing = "object-verity-missing"
        case objectVerityFailed = "object-verity-failed"
        case entryNotSymlink = "entry-not-symlink"
        case brokenSymlink = "broken-symlink"
        case statFailed = "stat-failed"
        /// A link has not the form that the format requires, or not the target that its name requires.
        case linkMismatch = "link-mismatch"
        case streamOpenFailed = "stream-open-failed"
        case streamReadFailed = "stream-read-failed"
        case missingObjectReference = "missing-object-ref"
        case missingNamedReference = "missing-named-ref"
        case objectCheckFailed = "object-check-failed"
        case imageOpenFailed = "image-open-failed"
        case imageReadFailed = "image-read-failed"
        case imageInvalid = "image-invalid"
        case imageMissingObject = "image-missing-object"
        case unexpectedFileType = "unexpected-file-type"
        /// A file that is not part of a repository.
        case strayFile = "stray-file"
    }

    public var kind: Kind
    /// The path, relative to the repository.
    public var path: ByteString
    /// The object concerned, if it is not that of the path.
    public var object: ObjectID?
    /// The named reference concerned.
    public var reference: String?
    /// The finding, in words.
    public var detail: String?

    public init(_ kind: Kind, _ path: ByteString, object: ObjectID? = nil, reference: String? = nil, detail: String? = nil) {
        self.kind = kind
        self.path = path
        self.object = object
        self.reference = reference
        self.detail = detail
    }

    public var description: String {
        var text = "fsck: \(kind.rawValue): \(path)"
        if let reference { text += ": ref \(ByteString(reference))" }
        if let object { text += kind == .objectDigestMismatch ? ": measured \(object)" : ": \(object)" }
        if let detail { text += ": \(detail)" }
        return text
    }
}

/// The result of a check.
public struct FsckReport: Sendable {
    public var hasMetadata = false
    public var objectsChecked = 0
    public var objectsCorrupted = 0
    public var streamsChecked = 0
    public var streamsCorrupted = 0
    public var imagesChecked = 0
    public var imagesCorrupted = 0
    public var brokenLinks = 0
    public var missingObjects = 0
    public var problems: [FsckProblem] = []
    /// Remarks that are not faults: temporary files of interrupted operations.
    public var notes: [String] = []

    /// Objects that were read and are what their names say.
    package var verified = VerifiedObjects()

    public init() {}

    public var isOK: Bool { problems.isEmpty }

    /// Adds a fault to the list and to its counter.
    public mutating func add(_ problem: FsckProblem) {
        switch problem.kind {
        case .brokenSymlink: brokenLinks += 1
        case .missingObjectReference, .missingNamedReference, .imageMissingObject: missingObjects += 1
        default: break
        }
        problems.append(problem)
    }
}

/// Objects that a check has read, and that are what their names say.
package struct VerifiedObjects: Sendable {
    /// All objects with their sizes; shared with the check's inventory.
    private var all: [ObjectID: UInt64] = [:]
    private var read = CheckedObjects.none
    private var faulty: Set<ObjectID> = []

    package init() {}

    init(all: [ObjectID: UInt64], read: CheckedObjects, faulty: Set<ObjectID>) { (self.all, self.read, self.faulty) = (all, read, faulty) }

    package func contains(_ id: ObjectID) -> Bool { read.contains(id) && all[id] != nil && !faulty.contains(id) }
}

/// A part of the objects that a check reads, so that a large repository can be checked in several runs. The parts 1 to `count` cover all objects.
public struct CheckSubset: Hashable, Sendable {
    /// From 1 to `count`.
    public let index: Int
    public let count: Int

    /// Nil unless 1 ≤ `index` ≤ `count`.
    public init?(_ index: Int, of count: Int) {
        guard count >= 1, (1...count).contains(index) else { return nil }
        (self.index, self.count) = (index, count)
    }

    /// Digests are distributed evenly, so all parts have about the same number of objects.
    package func contains(_ digest: UnsafeRawBufferPointer) -> Bool {
        guard digest.count >= 8 else { return index == 1 }
        let number = UInt64(littleEndian: digest.loadUnaligned(as: UInt64.self))
        return number % UInt64(count) == UInt64(index - 1)
    }
}
