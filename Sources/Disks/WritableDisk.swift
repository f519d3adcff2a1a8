public import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem

/// Makes the writable disk of a virtual machine: a sparse file with an ext4 file system that has the empty directories `upper` and `work` of an
/// overlay, a journal, and room to grow.
///
/// - Parameters:
///   - size: in bytes; rounded down to whole blocks of 4 KiB.
///   - path: the file, whose name must be free.
/// - Returns: the size in bytes.
/// - Throws: `DiskError.exists`, `.invalidPath`; `Ext4Error.tooSmall`, `.tooLarge`; `SystemError`.
public func makeUpperDisk(size: UInt64, at path: ByteString) throws -> UInt64 {
    var tree = FileTree(root: Metadata(permissions: 0o755))
    for name in ["upper", "work"] as [ByteString] { try tree.addDirectory(name, in: FileTree.root, Metadata(permissions: 0o755)) }
    // Two disks must not have the same identifier, although they have the same content.
    let random = ContentDigest.of(Array(Host.randomName(32).utf8)).bytes
    let plan = try Ext4Plan(tree, Ext4Options(size: .exactly(size), uuid: Ext4UUID(random: random), journal: .automatic))
    try DiskOutput.makeNewFile(path) { file in
        try file.truncate(to: plan.byteCount)
        for blocks in plan.metadata { try blocks.bytes.withUnsafeBytes { try file.pwriteAll($0, at: blocks.offset) } }
    }
    return plan.byteCount
}

/// Makes a file with an ext4 file system, and the file system, larger. It must not be mounted or belong to a virtual machine that runs. A file
/// system that was not unmounted cleanly is refused, and the file stays as it was.
///
/// - Parameters:
///   - size: in bytes; rounded down to whole blocks of 4 KiB.
///   - path: the file, or a block device that has the size already.
/// - Returns: the size of the file system in bytes; that of the file is the requested one.
/// - Throws: `DiskError.busy`, `.notRegularFile`; `Ext4Error`, all before anything is written; `SystemError`.
public func growDisk(to size: UInt64, at path: ByteString) throws -> UInt64 {
    let file = try FileDescriptor.open(path, .readWrite)
    let status = try file.status()
    guard status.kind == .regular || status.kind == .blockDevice else { throw DiskError.notRegularFile(path) }
    guard try file.lock(.exclusive, wait: false) else { throw DiskError.busy(path) }
    let isFile = status.kind == .regular
    let old = isFile ? status.size : try file.seek(to: 0, from: .end)
    // Refused before the file is changed.
    let present = try Ext4Image(try DiskStorage(file, byteCount: old)).byteCount
    guard size >= present else { throw Ext4Error.cannotShrink(from: present, to: size) }
    if isFile, size > old { try file.truncate(to: size) }
    do {
        return try growExt4(try DiskStorage(file, byteCount: max(size, old)), to: size, zeroes: isFile ? old : .max)
    } catch let error as Ext4Error {
        if isFile, size > old { try file.truncate(to: old) }
        throw error
    }
}

/// A file that is read and changed in place.
private final class DiskStorage: Ext4Storage {
    private let file: FileDescriptor
    let byteCount: UInt64

    init(_ file: borrowing FileDescriptor, byteCount: UInt64) throws(SystemError) {
        self.file = try file.duplicate()
        self.byteCount = byteCount
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        try file.preadFully(into: buffer, at: offset)
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws { try file.pwriteAll(bytes, at: offset) }

    func sync() throws { try file.sync() }
}
