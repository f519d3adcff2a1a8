import Bytes
import LinuxSystem

/// Whether an image's missing layers can fit, before the first of them is read.
///
/// What they will take is not known: the manifest tells compressed sizes only, and files that the store has already take nothing. So only
/// what can hardly fit is refused, which is where not even the compressed bytes have room. For the message, an image takes `growth` times
/// that: so much do gzip and zstd make of the usual root file system.
struct SpaceCheck {
    /// Bytes of the missing blobs, less what of them is on this disk already.
    var compressedBytes: UInt64
    var layers: Int
    var freeBytes: UInt64
    /// Nil where the file system does not count inodes.
    var freeInodes: UInt64?

    static let growth = 2.6
    /// Config, manifest, EROFS image, with their streams.
    private static let inodesBesides: UInt64 = 6

    init(compressedBytes: UInt64, layers: Int, _ status: FileSystemStatus, isPrivileged: Bool) {
        self.compressedBytes = compressedBytes
        self.layers = layers
        freeBytes = isPrivileged ? status.freeBytes : status.availableBytes
        freeInodes = status.totalInodes > 0 ? status.freeInodes : nil
    }

    func check(_ repository: ByteString) throws(PullError) {
        if compressedBytes > freeBytes {
            throw .noSpace(
                repository, layers: layers, atLeast: compressedBytes, about: Self.estimate(compressedBytes), free: freeBytes)
        }
        let inodes = UInt64(layers) + Self.inodesBesides
        if let freeInodes, inodes > freeInodes { throw .noInodes(repository, atLeast: inodes, free: freeInodes) }
    }

    private static func estimate(_ bytes: UInt64) -> UInt64 { UInt64(min(Double(bytes) * growth, 1e18)) }
}
