import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports
import Synchronization

/// An image to be stored again. Its documents come from the store as far as they are intact, and everything else from an origin that is opened
/// when it is needed. The digest of the manifest is fixed, so the image is the same even if the reference names another one now.
final class RepairImageSource: ImageSource {
    private let image: ByteString
    private let digest: ContentDigest
    private let manifest: [UInt8]?
    private let documents: [ContentDigest: [UInt8]]
    private let origin: RepairSource?
    private let opened = Mutex<Result<any ImageSource, any Error>?>(nil)

    let canonicalName: String
    let pinnedDigest: ContentDigest?

    /// - Parameters:
    ///   - manifest: its bytes; nil if the store has no intact copy.
    ///   - documents: the intact configs of the store.
    ///   - origin: the source of everything else; nil if none is known.
    init(
        _ image: ByteString, _ digest: ContentDigest, manifest: [UInt8]?, documents: [ContentDigest: [UInt8]], from origin: RepairSource?
    ) {
        self.image = image
        self.digest = digest
        self.manifest = manifest
        self.documents = documents
        self.origin = origin
        canonicalName = digest.description
        pinnedDigest = digest
    }

    /// Whether anything was requested from the origin.
    var isOpened: Bool { opened.withLock { $0 != nil } }

    private func remote() throws -> any ImageSource {
        if let known = opened.withLock({ $0 }) { return try known.get() }
        let result = Result { () throws -> any ImageSource in
            guard let origin else { throw RepairError.noSource(image: image) }
            return try origin.open()
        }
        // Two threads may open it at the same time; one of the two is used.
        return try opened.withLock { known in
            if let known { return try known.get() }
            known = result
            return try result.get()
        }
    }

    func rootManifest() throws -> SourceManifest {
        let bytes = try manifest ?? fetchManifest()
        return SourceManifest(bytes: bytes, expected: Descriptor(mediaType: "", digest: digest, size: UInt64(bytes.count)))
    }

    private func fetchManifest() throws -> [UInt8] {
        let found = try resolveManifest(remote(), platform: .host)
        guard found.digest == digest else {
            throw OCIError.notFound(source: origin?.name ?? image, .otherImage(found: found.digest, wanted: digest))
        }
        return found.manifest.bytes
    }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] { try remote().manifest(descriptor) }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        if let bytes = documents[descriptor.digest] { return DataBlobReader(bytes) }
        return try remote().openBlob(descriptor)
    }

    func origins(of descriptor: Descriptor) throws -> any BlobOrigins {
        if let bytes = documents[descriptor.digest] { return LocalOrigin { DataBlobReader(bytes) } }
        return try remote().origins(of: descriptor)
    }
}

extension PullLimits {
    /// For an image that was accepted before: its policy is not evaluated again.
    static let unlimited = {
        var limits = PullLimits()
        limits.layerBytes = 1 << 60
        limits.layerEntries = 1 << 40
        limits.imageEntries = 1 << 40
        limits.treeBytes = 1 << 60
        limits.pathBytes = 1 << 20
        limits.xattrBytes = 1 << 20
        limits.manifestBytes = UInt64(ImageLimits.largestManifest)
        return limits
    }()
}
