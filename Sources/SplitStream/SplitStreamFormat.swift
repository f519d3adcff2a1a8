public import ComposefsHashing

/// The content type of a split stream: eight ASCII characters, read as a little-endian number.
public enum StreamContentType {
    /// `ocilayer`: a tar layer.
    public static let layer: UInt64 = 0x7265_7961_6c69_636f
    /// `ociconfg`: an image configuration.
    public static let config: UInt64 = 0x6766_6e6f_6369_636f
    /// `ocimanif`: a manifest or index.
    public static let manifest: UInt64 = 0x6669_6e61_6d69_636f
    /// `oci_blob`: any other blob of an artifact.
    public static let blob: UInt64 = 0x626f_6c62_5f69_636f
    /// `oci_disk`: the files of a disk that was made of an image.
    public static let disk: UInt64 = 0x6b73_6964_5f69_636f
}

/// A named reference of a stream to another object.
public struct NamedReference: Hashable, Sendable {
    /// UTF-8 without NUL. The format compares names by their bytes, whereas Swift compares strings by canonical equivalence.
    public var name: String
    public var id: ObjectID

    public init(name: String, id: ObjectID) {
        self.name = name
        self.id = id
    }
}

/// The layout of the file (split stream format, "Layout"). All integers are little-endian, all ranges absolute.
///
/// ```
/// offset  size  header                          offset  size  info
///      0    11  magic "SplitStream"                  32    16  range of the digests of named references
///     11     1  version, 0                           48    16  range of the digests of external objects
///     12     2  flags, 0                             64    16  range of the packed body
///     14     1  fs-verity algorithm                  80    16  range of the packed names
///     15     1  log2 of the block size, 12           96     8  content type
///     16    16  range of the info                   104     8  bytes of the whole unpacked content
/// ```
///
/// Old writers put the info's range first, then flags, magic, version, algorithm and block size.
enum SplitStreamLayout {
    static let magic: StaticString = "SplitStream"
    static let headerSize = 32
    static let infoSize = 80
    static let version: UInt8 = 0
    static let logBlockSize: UInt8 = 12

    /// The largest size of the decompressed names in bytes, and the largest number of names: far more than images have.
    static let longestNames = 16 << 20
    static let mostNames = 1 << 18
    /// The largest number of digests in one table.
    static let mostDigests: UInt64 = 1 << 24
}
