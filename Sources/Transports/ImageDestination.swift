public import ComposefsHashing
public import ComposefsOCIModel

/// The destination of a push: a registry, a layout or an archive. Its methods block, and several threads of the push call them at once.
public protocol ImageDestination: Sendable {
    /// The name in messages and results, for example `docker.io/library/alpine:latest` or `oci:DIR:TAG`.
    var displayName: String { get }

    /// The reference if the destination is a registry: blobs can be mounted from other repositories of the same registry. Else nil.
    var registryReference: RegistryReference? { get }

    /// Whether the destination accepts images in Docker's format. If not, they are converted to OCI images, because other readers of
    /// layouts do not find them. True by default.
    var takesDockerFormat: Bool { get }

    /// Whether the destination has a blob with the descriptor's digest and size.
    func hasBlob(_ blob: Descriptor) throws -> Bool

    /// Mounts a blob from another repository of the same registry (distribution-spec, "Mounting a blob"). False if the registry does not.
    func mountBlob(_ blob: Descriptor, from source: RegistryReference) throws -> Bool

    /// Stores a blob, and verifies its digest and size if they are known.
    ///
    /// - Throws: `PushError.blobDigest`, and errors of the destination.
    func putBlob(_ blob: OutgoingBlob) throws -> SentBlob

    /// Stores a manifest whose blobs the destination has. With `isNamed`, the destination's tag refers to it afterwards, durably.
    func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws

    /// Stores an index whose manifests the destination has; otherwise as `putManifest`.
    ///
    /// - Throws: `OCIError` if the destination cannot hold an index, and errors of the destination.
    func putIndex(_ index: ImageIndex, digest: ContentDigest, isNamed: Bool) throws

    /// Completes the push. Called once, after everything has been stored.
    func finish() throws
}

extension ImageDestination {
    public var takesDockerFormat: Bool { true }
}

/// A blob to be sent. Its bytes can be produced repeatedly, so that an upload can be retried.
public struct OutgoingBlob: Sendable {
    /// Emits the blob from beginning to end, with the same bytes in every call. Rethrows what `emit` throws.
    public typealias Producer = @Sendable (_ emit: (UnsafeRawBufferPointer) throws -> Void) throws -> Void

    /// Digest and size; nil if they are known only after the bytes have been produced.
    public var expected: SentBlob?
    /// Produces the bytes.
    public var produce: Producer

    /// A blob that `produce` produces.
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

/// Digest and size of a blob that was stored.
public struct SentBlob: Hashable, Sendable {
    public var digest: ContentDigest
    /// The size in bytes.
    public var size: UInt64

    public init(digest: ContentDigest, size: UInt64) {
        self.digest = digest
        self.size = size
    }
}

/// Computes the size and digest of a blob while it is produced, and compares them with the expected ones at the end. For destinations.
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
