import ComposefsBytes
import ComposefsLinuxSystem

/// Checks, before the first layer is read, whether an image's missing layers can fit.
///
/// The space that they need is not known: the manifest states only compressed sizes, and files that the store has take no space. So a pull
/// is refused only if the compressed bytes do not fit. The estimate in the message is `growth` times the compressed size, the usual ratio
/// of gzip and zstd for a root file system. Kept blobs add their own size.
struct SpaceCheck {
    /// The size of the blobs to unpack, in bytes, without the partial blobs that the repository has.
    var compressedBytes: UInt64
    /// The size of the blobs to store unchanged, in bytes.
    var blobBytes: UInt64
    var layers: Int
    /// Nil if the file system reports no size, like ramfs and a tmpfs without a limit.
    var freeBytes: UInt64?
    /// Nil if the file system does not count inodes.
    var freeInodes: UInt64?

    static let growth = 2.6
    /// The inodes for config, manifest and EROFS image with their streams.
    private static let inodesBesides: UInt64 = 6

    init(compressedBytes: UInt64, blobBytes: UInt64 = 0, layers: Int, _ status: FileSystemStatus, isPrivileged: Bool) {
        self.compressedBytes = compressedBytes
        self.blobBytes = blobBytes
        self.layers = layers
        freeBytes = status.freeBytes(isPrivileged: isPrivileged)
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
