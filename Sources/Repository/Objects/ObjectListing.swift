internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem

// Every walk over all objects: collections, accounts and recovery need the status of each file, the check only its name.
extension Repository {
    /// The names of the directories `objects/XX`, as numbers in ascending order. Files of another type with such a name hold no objects; fsck reports
    /// them.
    static func objectDirectories(in root: borrowing RootedDirectory) throws(RepositoryError) -> [UInt8] {
        var found: [UInt8] = []
        for entry in try entries(of: Layout.objects, in: root) ?? [] {
            guard entry.name.count == 2, let index = Hex.decode(entry.name.bytes)?.first else { continue }
            let path = Layout.objects + "/" + entry.name
            // The check of the name's case: the path of an object has lower-case digits.
            guard path == objectDirectory(index) else { continue }
            var kind: FileKind? = entry.kind
            if kind == .unknown { kind = try system { () throws(SystemError) in try root.statusIfPresent(at: path)?.kind } }
            if kind == .directory { found.append(index) }
        }
        return found
    }

    /// The path of one of the 256 directories.
    static func objectDirectory(_ index: UInt8) -> ByteString { Layout.objects + "/" + ByteString(Hex.encode(CollectionOfOne(index))) }

    /// Calls `body` with every file below `objects/XX`: its identifier (nil if the name is not that of an object), path, and status.
    func forEachObject(
        _ body: (ObjectID?, ByteString, FileStatus) throws(RepositoryError) -> Void
    ) throws(RepositoryError) {
        let directories = try Self.objectDirectories(in: root)
        // A part of the directories at a time: what is known of all objects need not be in memory at once.
        for start in stride(from: 0, to: directories.count, by: Self.directoriesAtOnce) {
            let part = Array(directories[start..<min(start + Self.directoriesAtOnce, directories.count)])
            let found = parallelMap(part, threads: Host.processorCount, batch: 1) { index -> Result<[ObjectEntry], RepositoryError> in
                do throws(RepositoryError) { return .success(try self.objectEntries(index)) } catch { return .failure(error) }
            }
            for result in found { for entry in try result.get() { try body(entry.id, entry.path, entry.status) } }
        }
    }

    private static var directoriesAtOnce: Int { 32 }

    private struct ObjectEntry: Sendable {
        var id: ObjectID?
        var path: ByteString
        var status: FileStatus
    }

    private func objectEntries(_ index: UInt8) throws(RepositoryError) -> [ObjectEntry] {
        let path = Self.objectDirectory(index)
        return try system { () throws(SystemError) in
            // Another process may have removed it meanwhile.
            guard let opened = try root.openIfPresent(at: path, [.readOnly, .directory, .noFollow]) else { return [] }
            let directory = RootedDirectory(opened)
            var found: [ObjectEntry] = []
            for entry in try directory.entries(of: ".") ?? [] {
                guard let status = try directory.statusIfPresent(at: entry.name) else { continue }
                let id = Layout.objectID(first: index, rest: entry.name, algorithm)
                found.append(ObjectEntry(id: id, path: path + "/" + entry.name, status: status))
            }
            return found.sorted { $0.path < $1.path }
        }
    }
}
