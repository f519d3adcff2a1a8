public import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

extension ImageTree {
    /// Copies the part of an image that this is, as `cp -a` does: with owner, mode, times, extended attributes and, of a directory, hard links.
    ///
    /// - Parameters:
    ///   - path: an existing directory, in which the copy gets `name`; or the path of the copy, whose directory exists.
    ///   - name: the last name of the part's path.
    /// - Returns: the path of the copy, and what was written. A regular file replaces one in one step; anything else must be missing, or an empty
    ///   directory for a directory.
    /// - Throws: as `unpack`.
    public func copy(
        to path: ByteString, named name: ByteString, _ options: UnpackOptions = UnpackOptions()
    ) throws -> (path: ByteString, report: UnpackReport) {
        guard options.ownedByUser || Host.effectiveUserID == 0 else { throw ExtractionError.ownersNeedRoot }
        let isInDirectory = try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true)?.kind == .directory
        let whole = isInDirectory && !(isDirectory && name.isEmpty) ? path + "/" + name : path
        if isDirectory { return (whole, try unpack(into: whole, options)) }
        return (whole, try copyLeaf(to: whole, options))
    }

    private func copyLeaf(to path: ByteString, _ options: UnpackOptions) throws -> UnpackReport {
        let (directory, name) = FileDescriptor.split(path)
        guard !name.isEmpty, name != ".", name != "..", path.bytes.last != UInt8(ascii: "/") else {
            throw ExtractionError.invalidPath(path)
        }
        let parent = try FileDescriptor.openDirectoryToWrite(directory)
        let unpacking = TreeUnpacking(self, options)
        let target = TreeUnpacking.Target(RootedDirectory(try parent.duplicate()))
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var hasher = VerityHasher(repository.algorithm)
        guard let content = tree.content(of: start), content.kind == .regular else {
            try unpacking.make(name, start, in: parent, target, buffer, &hasher)
            try parent.sync()
            return target.report.withLock { $0 }
        }
        if let status = try parent.statusIfPresent(at: name), status.kind != .regular { throw ExtractionError.notRegularFile(path) }
        let naming = PendingFile.Naming(prefix: ByteString(([UInt8(ascii: ".")] + name.bytes).prefix(200)) + ".tmp-")
        PendingFile.removeAbandoned(in: parent, naming)
        var pending = try PendingFile(in: parent, naming, mode: 0o600)
        do {
            try unpacking.fill(pending.file, content, start, target, buffer, &hasher)
            try pending.publish(in: parent, as: name)
            try parent.sync()
        } catch {
            pending.abandon(in: parent)
            throw error
        }
        return target.report.withLock { $0 }
    }
}
