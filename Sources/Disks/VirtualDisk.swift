import ComposefsBytes

/// The descriptor of a VMDK of several files (VMware Virtual Disk Format 1.1, `twoGbMaxExtentFlat`): text that names the extents of the disk.
///
/// Paths are relative to the descriptor, so that the directory can be moved. QEMU counts an extent twice after an empty line, and skips a line
/// that does not begin with `RW`; a machine opens the disk read-only by its own option.
struct VirtualDisk {
    static let sectorSize: UInt64 = 512
    /// An extent of 2 GiB; a larger file has several.
    static let largestExtent: UInt64 = 1 << 22
    private static let sectorsPerCylinder: UInt64 = 16 * 63

    /// Names without a quotation mark or line end, and sizes in bytes, which are multiples of 512.
    var extents: [(name: ByteString, size: UInt64)] = []

    var descriptor: [UInt8] {
        var text = Array(
            """
            # Disk DescriptorFile
            version=1
            CID=fffffffe
            parentCID=ffffffff
            createType="twoGbMaxExtentFlat"
            # Extent description

            """.utf8)
        var total: UInt64 = 0
        for (name, size) in extents {
            let sectors = size / Self.sectorSize
            total += sectors
            var offset: UInt64 = 0
            while offset < sectors {
                let count = min(sectors - offset, Self.largestExtent)
                text += Array("RW \(count) FLAT \"".utf8) + name.bytes + Array("\" \(offset)\n".utf8)
                offset += count
            }
        }
        text += Array(
            """
            # The Disk Data Base
            #DDB
            ddb.virtualHWVersion = "4"
            ddb.geometry.cylinders = "\((total + Self.sectorsPerCylinder - 1) / Self.sectorsPerCylinder)"
            ddb.geometry.heads = "16"
            ddb.geometry.sectors = "63"
            ddb.adapterType = "ide"

            """.utf8)
        return text
    }
}
