import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsSnapshotFormat

/// A disk's file that is read, and does not change meanwhile: it is locked against `growDisk`, and compared at the end.
final class UpperSource: Sendable {
    let file: FileDescriptor
    let path: ByteString
    let size: UInt64
    private let status: FileStatus

    /// - Throws: `SnapshotError.notRegularFile`, `.empty`, `.tooLarge`, `.inUse`.
    init(_ path: ByteString) throws {
        self.path = path
        let file = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
        status = try Self.check(file, path)
        size = status.size
        self.file = file
    }

    /// A file in a directory, which is not a symbolic link.
    init(_ name: ByteString, in directory: borrowing FileDescriptor, path: ByteString) throws {
        self.path = path
        guard try directory.statusIfPresent(at: name)?.kind ?? .regular == .regular else { throw SnapshotError.notRegularFile(path) }
        let file = try directory.open(at: name, [.readOnly, .nonBlocking, .noFollow])
        status = try Self.check(file, path)
        size = status.size
        self.file = file
    }

    private static func check(_ file: borrowing FileDescriptor, _ path: ByteString) throws -> FileStatus {
        guard try file.status().kind == .regular else { throw SnapshotError.notRegularFile(path) }
        guard try file.lock(.shared, wait: false), try !isOpenInMachine(file) else { throw SnapshotError.inUse(path) }
        let status = try file.status()
        guard status.size > 0 else { throw SnapshotError.empty(path) }
        guard status.size <= UpperLayout.sizeLimit else {
            throw SnapshotError.tooLarge(path, size: status.size, limit: UpperLayout.sizeLimit)
        }
        return status
    }

    /// Compares what stat(2) says with the beginning.
    ///
    /// - Throws: `SnapshotError.changed`.
    func checkUnchanged() throws {
        let now = try file.status()
        guard now.size == status.size, now.mtimeSeconds == status.mtimeSeconds, now.mtimeNanoseconds == status.mtimeNanoseconds,
            now.ctimeSeconds == status.ctimeSeconds, now.ctimeNanoseconds == status.ctimeNanoseconds
        else { throw SnapshotError.changed(path) }
    }

    /// Whether qemu has the file open for writing: it then holds a lock of byte 101 (`RAW_LOCK_PERM_BASE` + `BLK_PERM_WRITE`), which the table of all
    /// locks shows. Unknown counts as no.
    private static func isOpenInMachine(_ file: borrowing FileDescriptor) throws -> Bool {
        let inode = try file.status().inode
        guard let table = try? FileDescriptor.open("/proc/locks", .readOnly), let bytes = try? table.readAll(limit: 1 << 26) else {
            return false
        }
        return bytes.split(separator: UInt8(ascii: "\n")).contains { line in
            // 1: OFDLCK ADVISORY READ -1 fe:00:16237119 101 101
            let fields = line.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
            guard fields.count == 8, fields[1] == "OFDLCK" || fields[1] == "POSIX", let first = UInt64(fields[6]), first <= 101,
                fields[7] == "EOF" || UInt64(fields[7]).map({ $0 >= 101 }) == true, let found = fields[5].split(separator: ":").last
            else { return false }
            // The device is the file system's own, which stat(2) does not show everywhere.
            return UInt64(found) == inode && (first > 0 || fields[3] == "WRITE")
        }
    }

    // MARK: What is on the disk

    /// What a raw disk's first blocks say.
    struct Content {
        var isExt4 = false
        /// Whether the journal of the file system has changes that are not applied.
        var needsRecovery = false
        var isQcow2 = false
    }

    private static let qcow2Magic = Array("QFI".utf8) + [0xfb]

    func content() throws -> Content { Self.content(try start()) }

    /// - Parameter bytes: the first 2048 of a disk, or more.
    static func content(_ bytes: [UInt8]) -> Content {
        var content = Content()
        content.isQcow2 = bytes.starts(with: qcow2Magic)
        guard bytes.count >= 2048 else { return content }
        // The superblock's magic number and incompatible features (fs/ext4/ext4.h).
        let superblock = Array(bytes[1024..<2048])
        content.isExt4 = superblock[0x38] == 0x53 && superblock[0x39] == 0xef
        content.needsRecovery = content.isExt4 && superblock[0x60] & 4 != 0
        return content
    }

    /// Checks that a qcow2 file is complete (docs/interop/qcow2.txt of qemu).
    ///
    /// - Throws: `SnapshotError.notQcow2`, `.qcow2`.
    func checkQcow2() throws {
        let bytes = try start()
        func big(_ offset: Int, _ count: Int) -> UInt64 { bytes[offset..<(offset + count)].reduce(0) { $0 << 8 | UInt64($1) } }
        guard bytes.count >= 104, bytes.starts(with: Self.qcow2Magic), (2...3).contains(big(4, 4)) else {
            throw SnapshotError.notQcow2(path)
        }
        guard big(8, 8) == 0 else {
            throw SnapshotError.qcow2(path, reason: "the qcow2 file has a backing file, without which it is not complete")
        }
        guard big(4, 4) == 3 else { return }
        let features = big(72, 8)
        if features & 4 != 0 { throw SnapshotError.qcow2(path, reason: "the qcow2 file has its data in another file") }
        if features & 2 != 0 { throw SnapshotError.qcow2(path, reason: "the qcow2 file is marked as corrupt") }
        if features & 1 != 0 { throw SnapshotError.qcow2(path, reason: "the qcow2 file is in use, or was not closed") }
    }

    private func start() throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 2048)
        let count = try bytes.withUnsafeMutableBytes { try file.preadFully(into: $0, at: 0) }
        return Array(bytes[..<count])
    }
}
