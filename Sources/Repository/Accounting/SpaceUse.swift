internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// The space that some files take.
public struct SpaceUse: Hashable, Sendable, Codable {
    /// The number of files.
    public var count: Int
    /// The sum of their lengths.
    public var bytes: UInt64
    /// The sum of what the file system has allocated for them (`st_blocks` × 512), as du(1) counts it. Extents that a file shares with other
    /// files (reflink) are counted as if it had them alone: the file system does not tell.
    public var diskBytes: UInt64

    public init(count: Int = 0, bytes: UInt64 = 0, diskBytes: UInt64 = 0) {
        self.count = count
        self.bytes = bytes
        self.diskBytes = diskBytes
    }

    // File systems may report any sizes, so sums saturate.

    public static func + (left: SpaceUse, right: SpaceUse) -> SpaceUse {
        SpaceUse(
            count: left.count + right.count, bytes: left.bytes.saturatingAdd(right.bytes),
            diskBytes: left.diskBytes.saturatingAdd(right.diskBytes))
    }

    public static func += (left: inout SpaceUse, right: SpaceUse) { left = left + right }

    /// What remains without a part of it.
    public static func - (left: SpaceUse, right: SpaceUse) -> SpaceUse {
        SpaceUse(
            count: max(0, left.count - right.count), bytes: left.bytes - min(left.bytes, right.bytes),
            diskBytes: left.diskBytes - min(left.diskBytes, right.diskBytes))
    }

    init(_ status: FileStatus) {
        let (disk, isHuge) = status.blocks.multipliedReportingOverflow(by: 512)
        self.init(count: 1, bytes: status.size, diskBytes: isHuge ? .max : disk)
    }
}
