import ComposefsBytes
import ComposefsLinuxSystem

/// Whether an image's missing layers can fit, before the first of them is read.
///
/// What they will take is not known: the manifest tells compressed sizes only, and files that the store has already take nothing. So only
/// what can hardly fit is refused, which is where not even the compressed bytes have room. For the message, an image takes `growth` times
/// that: so much do gzip and zstd make of the usual root file system. Blobs that are kept as they are take their size besides.
struct SpaceCheck {
    /// Bytes of the blobs that are to be unpacked, less what of them is on this disk already.
    var compressedBytes: UInt64
    /// Bytes of the blobs that are to be stored as they come.
    var blobBytes: UInt64
    var layers: Int
    /// Nil where the file system reports no size, as ramfs and a tmpfs without a limit do.
    var freeBytes: UInt64?
    /// Nil where the file system does not count inodes.
    var freeInodes: UInt64?

    static let growth = 2.6
    /// Config, manifest, EROFS image, with their streams.
    private static let inodesBesides: UInt64 = 6

    init(compressedBytes: UInt64, blobBytes: UInt64 = 0, layers: Int, _ status: FileSystemStatus, isPrivileged: Bool) {
        self.compressedBytes = compressedBytes
        self.blobBytes = blobBytes
        self.layers = layers
        freeBytes = !status.reportsSize ? nil : isPrivileged ? status.freeBytes : status.availableBytes
        freeInodes = status.totalInodes > 0 ? status.freeInodes : nil
    }

    func check(_ repository: ByteString) throws(PullError) {
        let least = compressedBytes.saturatingAdd(blobBytes)
        if let freeBytes, least > freeBytes {
            throw .noSpace(
                repository, layers: layers, atLeast: least, about: Self.estimate(compressedBytes).saturatingAdd(blobBytes), free: freeBytes)
        }
        let inodes = UInt64(layers) + Self.inodesBesides
        if let freeInodes, inodes > freeInodes { throw .noInodes(repository, atLeast: inodes, free: freeInodes) }
    }

    private static func estimate(_ bytes: UInt64) -> UInt64 { UInt64(min(Double(bytes) * growth, 1e18)) }
}
