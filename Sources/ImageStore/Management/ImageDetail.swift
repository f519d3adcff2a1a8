public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// A stored image as lists show it.
public struct ImageHandle: Sendable, Hashable, Codable {
    /// The tag; the name of an image that was made from a directory; the manifest's digest for an image without a name.
    public var reference: ByteString
    /// The size of the layers' blobs in bytes, as the manifest states them; nil if the image cannot be read. For an image that was made from
    /// a directory: the size of its EROFS image.
    public var size: UInt64?
    /// Nil for an image that was made from a directory.
    public var manifestDigest: ContentDigest?
    /// From the config; nil if it does not say, or there is none.
    public var architecture: String?
    /// From the config; nil as above.
    public var os: String?
    /// The number of layers in the manifest.
    public var layerCount: Int
    /// When the reference was used last: to pull, mount, serve, push, export or copy the image. Nil if that is unknown.
    public var lastUsed: Timestamp?
    /// When the image was built, from the config; nil if it does not say.
    public var created: Timestamp?

    public init(
        reference: ByteString, size: UInt64? = nil, manifestDigest: ContentDigest? = nil, architecture: String? = nil, os: String? = nil,
        layerCount: Int = 0, lastUsed: Timestamp? = nil, created: Timestamp? = nil
    ) {
        self.reference = reference
        self.size = size
        self.manifestDigest = manifestDigest
        self.architecture = architecture
        self.os = os
        self.layerCount = layerCount
        self.lastUsed = lastUsed
        self.created = created
    }

    init(_ record: ImageRecord) {
        self.init(
            reference: record.name, size: record.size, manifestDigest: record.manifestDigest,
            architecture: record.architecture.isEmpty ? nil : record.architecture, os: record.os.isEmpty ? nil : record.os,
            layerCount: record.layerCount, lastUsed: record.lastUsed, created: record.createdTime)
    }
}

/// A stored image with its config and layers.
public struct ImageDetail: Sendable, Hashable, Codable {
    public var handle: ImageHandle
    /// Nil for an artifact and for an image that was made from a directory.
    public var config: ImageConfigDetail?
    /// From the lowest to the highest.
    public var layers: [ImageLayerDetail]

    public init(handle: ImageHandle, config: ImageConfigDetail? = nil, layers: [ImageLayerDetail] = []) {
        self.handle = handle
        self.config = config
        self.layers = layers
    }
}

/// The members of an image's config that describe its processes.
public struct ImageConfigDetail: Sendable, Hashable, Codable {
    /// Of the config.
    public var digest: ContentDigest
    /// `NAME=VALUE`, in the order of the document.
    public var env: [String]
    public var cmd: [String]?
    public var entrypoint: [String]?
    public var workingDir: String?
    public var user: String?
    public var labels: [String: String]
    public var stopSignal: String?

    public init(
        digest: ContentDigest, env: [String] = [], cmd: [String]? = nil, entrypoint: [String]? = nil, workingDir: String? = nil,
        user: String? = nil, labels: [String: String] = [:], stopSignal: String? = nil
    ) {
        self.digest = digest
        self.env = env
        self.cmd = cmd
        self.entrypoint = entrypoint
        self.workingDir = workingDir
        self.user = user
        self.labels = labels
        self.stopSignal = stopSignal
    }
}

/// A layer of an image.
public struct ImageLayerDetail: Sendable, Hashable, Codable {
    /// The digest of the uncompressed archive; nil for a blob of an artifact.
    public var diffID: ContentDigest?
    /// The digest of the blob, compressed as the manifest says.
    public var blobDigest: ContentDigest
    public var mediaType: String
    /// The size of the blob in bytes.
    public var compressedSize: UInt64
    /// The size in bytes of the EROFS image of this layer alone; nil if the repository has none.
    public var erofsSize: UInt64?
    /// From the lowest layer, counted from 0.
    public var position: Int

    public init(
        diffID: ContentDigest?, blobDigest: ContentDigest, mediaType: String, compressedSize: UInt64, erofsSize: UInt64? = nil,
        position: Int
    ) {
        self.diffID = diffID
        self.blobDigest = blobDigest
        self.mediaType = mediaType
        self.compressedSize = compressedSize
        self.erofsSize = erofsSize
        self.position = position
    }
}

/// What a prune removed, or would remove.
public struct ImagePruneReport: Sendable, Hashable, Codable {
    /// Tags.
    public var referencesRemoved: Int
    public var manifestsRemoved: Int
    /// Layers, and the blobs of artifacts.
    public var layersRemoved: Int
    /// Metadata images of merged disks.
    public var fsmetaRemoved: Int
    /// Descriptors of merged disks.
    public var vmdkRemoved: Int
    /// The bytes of all removed objects.
    public var bytesReclaimed: UInt64

    public init(
        referencesRemoved: Int = 0, manifestsRemoved: Int = 0, layersRemoved: Int = 0, fsmetaRemoved: Int = 0, vmdkRemoved: Int = 0,
        bytesReclaimed: UInt64 = 0
    ) {
        self.referencesRemoved = referencesRemoved
        self.manifestsRemoved = manifestsRemoved
        self.layersRemoved = layersRemoved
        self.fsmetaRemoved = fsmetaRemoved
        self.vmdkRemoved = vmdkRemoved
        self.bytesReclaimed = bytesReclaimed
    }

    /// - Parameters:
    ///   - references: the number of removed tags.
    ///   - streams: the names of the removed streams, which tell what they were.
    ///   - bytes: those of the removed objects.
    package init(references: Int, streams: [ByteString], bytes: UInt64) {
        func count(_ prefix: ByteString) -> Int { streams.count { StreamName.digest(in: $0, after: prefix) != nil } }
        self.init(
            referencesRemoved: references, manifestsRemoved: count(StreamName.manifestPrefix), layersRemoved: count(StreamName.layerPrefix),
            fsmetaRemoved: streams.count { $0.hasPrefix(DiskRecord.streamPrefix + "fsmeta-") },
            vmdkRemoved: streams.count { $0.hasPrefix(DiskRecord.streamPrefix + "vmdk-") }, bytesReclaimed: bytes)
    }
}
