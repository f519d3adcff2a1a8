public import ComposefsHashing
public import ComposefsOCIModel

/// Where a push goes: a registry, a layout, an archive. Synchronous; called from the push's own threads, several at once.
public protocol ImageDestination: Sendable {
    /// For messages and results: `docker.io/library/alpine:latest`, `oci:DIR:TAG`.
    var displayName: String { get }

    /// The repository, where the destination is one of a registry: blobs may be mounted from others of the same registry.
    var registryReference: RegistryReference? { get }

    /// Whether images in Docker's format are taken as they are. Else they become OCI images: other readers of layouts do not find them. True by
    /// default.
    var takesDockerFormat: Bool { get }

    /// Whether the destination has a blob with the descriptor's digest and size.
    func hasBlob(_ blob: Descriptor) throws -> Bool

    /// Takes a blob over from another repository of the same registry; false where the registry does not do it.
    func mountBlob(_ blob: Descriptor, from source: RegistryReference) throws -> Bool

    /// Takes a blob's bytes, and checks its digest and size where they are known.
    func putBlob(_ blob: OutgoingBlob) throws -> SentBlob

    /// Takes a manifest whose blobs are there. `isNamed`: it becomes what the destination's tag stands for, durably.
    func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws

    /// Called once, after everything has been put.
    func finish() throws
}

extension ImageDestination {
    public var takesDockerFormat: Bool { true }
}

/// A blob that can be made as often as need be.
public struct OutgoingBlob: Sendable {
    /// Hands out the bytes from the first to the last; the same ones at every call. Rethrows what the receiver throws.
    public typealias Producer = @Sendable (_ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void

    /// Nil where it shows only when the bytes have been made.
    public var expected: SentBlob?
    public var produce: Producer

    public init(expected: SentBlob?, produce: @escaping Producer) {
        self.expected = expected
        self.produce = produce
    }

    /// A blob in memory.
    public init(_ bytes: [UInt8], digest: ContentDigest) {
        self.init(expected: SentBlob(digest: digest, size: UInt64(bytes.count))) { emit in
            try bytes.withUnsafeBytes { try emit($0) }
        }
    }
}

/// A blob that is where it should be.
public struct SentBlob: Hashable, Sendable {
    public var digest: ContentDigest
    /// In bytes.
    public var size: UInt64

    public init(digest: ContentDigest, size: UInt64) {
        self.digest = digest
        self.size = size
    }
}

/// Counts and digests a blob while it is produced, and compares in the end. For destinations.
package struct BlobCheck: ~Copyable {
    package private(set) var size: UInt64 = 0
    private let expected: SentBlob?
    private var hasher: DigestHasher

    package init(_ expected: SentBlob?) {
        self.expected = expected
        hasher = DigestHasher(expected?.digest.algorithm ?? .sha256)
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        hasher.update(bytes)
        size += UInt64(bytes.count)
    }

    package mutating func finish() throws(PushError) -> SentBlob {
        let actual = SentBlob(digest: hasher.finalize(), size: size)
        if let expected, actual != expected { throw .blobDigest(expected: expected.digest, actual: actual.digest) }
        return actual
    }
}
