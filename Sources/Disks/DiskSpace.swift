import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsRepository

// Whether a disk fits is checked before its bytes are written: writing would fill a file system that others need, too. What could fit is not refused,
// so only what certainly takes space counts: the data of objects, on file systems that neither share nor compress blocks.

/// Where the files of a disk take space.
struct DiskSpace {
    /// For messages.
    var path: ByteString
    var status: FileSystemStatus

    /// The free bytes; nil if it is not known how many will be taken.
    var freeBytes: UInt64? {
        status.storesWholeBlocks ? status.freeBytes(isPrivileged: Host.effectiveUserID == 0) : nil
    }

    /// - Throws: `DiskError.noSpace`; `RepositoryError` if an object is missing.
    func check(_ content: DiskContent, from repository: Repository) throws {
        guard let free = freeBytes else { return }
        // Usually this is enough, and no object is looked at.
        guard content.parts.reduce(0, { $0.saturatingAdd($1.count) }) > free else { return }
        let needed = try dataBytes(of: content.parts, in: repository)
        guard needed <= free else { throw DiskError.noSpace(path, needed: needed, free: free) }
    }

    /// What the parts have without the holes of their objects.
    private func dataBytes(of parts: ObjectParts, in repository: Repository) throws -> UInt64 {
        var total: UInt64 = 0
        var first = 0
        while first < parts.count {
            var end = first + 1
            // Of one copy of an object, which has the blocks once.
            while end < parts.count, parts[end].object == parts[first].object, parts[end].objectOffset > parts[end - 1].objectOffset {
                end += 1
            }
            let file = try repository.openObject(parts[first].object, verify: false)
            var data: UInt64 = 0
            for part in parts[first..<end] {
                data = data.saturatingAdd(try file.dataBytes(in: part.objectOffset..<part.objectOffset.saturatingAdd(part.count)))
            }
            total = total.saturatingAdd(min(data, try file.status().blocks * 512))
            first = end
        }
        return total
    }
}

extension FileDescriptor {
    /// The bytes of a range that are not in holes.
    borrowing func dataBytes(in range: Range<UInt64>) throws(SystemError) -> UInt64 {
        var total: UInt64 = 0
        var position = range.lowerBound
        while position < range.upperBound, let data = try nextData(from: position), data < range.upperBound {
            let hole = min(range.upperBound, try nextHole(from: data))
            // A file that changes meanwhile may have a hole there by now.
            guard hole > data else { break }
            total += hole - data
            position = hole
        }
        return total
    }
}
